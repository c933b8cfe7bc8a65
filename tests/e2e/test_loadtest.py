"""The load generator against the server: the scenario smoke over every protocol, its JSON and its page, two targets, and runs
that do not come to their end."""

import json
import signal
import subprocess
import time

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


def scenario(tmp_path, *steps, protocol="v2-binary"):
    """A file with steps of the given seconds, 50 requests a second each."""
    text = f"""description = ""
slo_milliseconds = 50
[[traffic]]
name = "iris"
protocol = "{protocol}"
model = "iris"
inputs = [{{ name = "float_input", datatype = "FP32", shape = [1, 4] }}]
"""
    for number, seconds in enumerate(steps):
        text += f"[[steps]]\nname = 'step {number}'\nseconds = {seconds}\n"
        text += "load.open = { arrivals = 'constant', rate = 50 }\n"
    file = tmp_path / "scenario.toml"
    file.write_text(text)
    return file


def test_steps_are_measured_over_all_their_rounds(address, tmp_path):
    file = scenario(tmp_path, 3, 1.5)
    file.write_text(file.read_text().replace("slo_milliseconds = 50", "slo_milliseconds = 50\nrounds = 3"))
    run = json.loads(play("run", file, "--target", f"http://{address}", "--out", "-").stdout)
    for step, seconds in zip(run["steps"], [3, 1.5], strict=True):
        assert step["seconds"] == pytest.approx(seconds)
        assert step["all"]["sent_per_second"] == pytest.approx(50, abs=3)
        assert len(step["all"]["timeline"]) == -(-seconds // 1)
        (rows,) = (value for name, value in step["servers"][0]["counted"].items() if name.startswith("stoker_batch_rows_sum"))
        assert rows == sum(step["all"]["outcomes"].values())
        assert 0 <= step["stolen"] < 1


def begin(*arguments):
    return subprocess.Popen([LOADTEST, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("protocol", ["v2-binary", "grpc"])
def test_a_server_that_dies_ends_the_run_and_not_what_was_measured(protocol, tmp_path):
    with stoker("--model_name=iris", f"--model_dir={MODELS / 'iris'}") as server:
        url = f"http://{server.event('listening')['http']}"
        running = begin("run", scenario(tmp_path, 1, 2, 1, protocol=protocol), "--target", url, "--out", tmp_path / "out")
        time.sleep(2)
        server.kill()
        _, said = running.communicate(timeout=LONGEST_SECONDS)
    assert running.returncode == 1 and 'after step "step 1"' in said and "does not answer any more" in said, said
    (kept,) = (tmp_path / "out").glob("*.json")
    run = json.loads(kept.read_text())
    first, second = [step["all"]["outcomes"] for step in run["steps"]]
    assert list(first) == ["200"] and set(second) == {"200", "no answer"}
    assert "Of 3 steps the first 2 were measured" in run["failure"]
    assert any("Connection refused" in reason for reason in run["steps"][1]["unanswered"])
    assert "was not played to its end" in kept.with_suffix(".html").read_text()


def test_an_interrupted_run_is_kept(address, tmp_path):
    running = begin("run", scenario(tmp_path, 1, 60), "--target", f"http://{address}", "--out", "-")
    time.sleep(2)
    running.send_signal(signal.SIGINT)
    kept, said = running.communicate(timeout=LONGEST_SECONDS)
    assert running.returncode == 1 and "interrupted" in said
    run = json.loads(kept)
    assert [step["name"] for step in run["steps"]] == ["step 0"]
    assert run["failure"] == "interrupted. Of 2 steps the first 1 were measured."


def test_what_cannot_be_played_is_refused_before_anything_is_asked(address, tmp_path):
    file = scenario(tmp_path, 60)
    file.write_text(file.read_text().replace("rate = 50", "rate = 0"))
    for arguments, reason in [
        ([file, "--out", tmp_path], 'step "step 0": rate is 0'),
        ([SCENARIOS / "smoke.toml", "--out", "/proc/nowhere"], "--out /proc/nowhere: a result cannot be written there"),
    ]:
        running = begin("run", *arguments, "--target", f"http://{address}")
        _, said = running.communicate(timeout=5)
        assert running.returncode == 1 and reason in said, said
