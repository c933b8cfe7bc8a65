"""The load generator against the server: the scenario smoke over every protocol, its JSON and its page, and two targets."""

import json
import subprocess

import pytest

from models import MODELS
from servers import ROOT, stoker

LOADTEST = ROOT / "target/release/loadtest"
SCENARIOS = ROOT / "loadtest/scenarios"
LONGEST_SECONDS = 120


@pytest.fixture(scope="module")
def address():
    with stoker("--model_name=iris", f"--model_dir={MODELS / 'iris'}") as server:
        yield server.event("listening")["http"]


def play(*arguments):
    return subprocess.run([LOADTEST, *arguments], check=True, capture_output=True, text=True, timeout=LONGEST_SECONDS)


def test_smoke(address, tmp_path):
    play("run", SCENARIOS / "smoke.toml", "--target", f"http://{address}", "--out", tmp_path)
    (kept,) = tmp_path.glob("*.json")
    steps = json.loads(kept.read_text())["steps"]
    assert [step["name"] for step in steps] == ["closed", "constant", "poisson", "bursty"]
    for step in steps:
        assert list(step["all"]["outcomes"]) == ["200"], step["all"]["outcomes"]
        assert {name for name, _ in step["traffic"]} == {"v1", "v2", "v2-binary", "grpc"}
        assert step["mean_batch_rows"] >= 1
    page = kept.with_suffix(".html").read_text()
    assert "<svg" in page and "poisson" in page


def test_two_targets_are_compared(address):
    targets = ["--target", f"stable=http://{address}", "--target", f"canary=http://{address}"]
    run = json.loads(play("run", SCENARIOS / "smoke.toml", *targets, "--out", "-").stdout)
    assert [target["name"] for target in run["targets"]] == ["stable", "canary"]
    assert {comparison["step"] for comparison in run["comparison"]} == {step["name"] for step in run["steps"]}
