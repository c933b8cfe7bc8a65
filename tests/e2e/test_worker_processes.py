"""A model in a process of its own: the server outlives whatever ends that, and so do its callers' requests."""

import json
import os
import signal
import subprocess
import sys

from metrics import Metrics
from models import MODELS, reference
from servers import ROOT, eventually, failure, family, stoker

ISOLATED = ["--model_name=iris", f"--model_dir={MODELS / 'iris'}", "--worker=process"]


def test_a_thousand_killed_processes_lose_no_answer_and_give_none_twice(tmp_path):
    command = [sys.executable, ROOT / "loadtest/kills.py", "--kills", "1000", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr + done.stdout
    (kept,) = tmp_path.iterdir()
    seen = json.loads(kept.read_text())
    assert seen["kills"] == 1000 and seen["answered"] > 20_000 and not seen["lost_or_wrong"]


def test_a_killed_server_leaves_no_process_behind():
    with stoker(*ISOLATED) as server:
        (worker,) = workers(server)
        os.kill(server.child.pid, signal.SIGKILL)
        eventually(lambda: not alive(worker), "the end of the model's process")


def test_a_server_that_is_asked_to_stop_answers_before_its_processes_end():
    with stoker(*ISOLATED, "--shutdown_delay_seconds=0.5") as server:
        (worker,) = workers(server)
        # Whoever interrupts a server at a terminal interrupts its process group.
        assert os.getpgid(worker) != os.getpgid(server.child.pid)
        os.kill(server.child.pid, signal.SIGTERM)
        server.event("shutting down")
        inputs = [
            {"name": name, "datatype": "FP32", "shape": list(x.shape), "data": x.ravel().tolist()}
            for name, x in reference("iris")[0][0].items()
        ]
        assert server.post("/v2/models/iris/infer", {"inputs": inputs}).status == 200
        assert server.wait() == 0
        assert not alive(worker)


def test_a_model_that_cannot_be_loaded_there_is_told_as_if_it_were_loaded_here(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"\x08\x08 no model")
    here, there = (failure(f"--model_dir={tmp_path}", f"--worker={worker}") for worker in ["thread", "process"])
    assert here == there and "model.onnx" in here


def test_a_model_that_is_only_in_memory_is_handed_over(minio, bucket):
    name = bucket({"iris/model.onnx": (MODELS / "iris/model.onnx").read_bytes()})
    uri = f"s3://{name}/iris"
    args = ["--model_name=iris", f"--storage_uri={uri}", "--cache_dir=none", "--worker=process"]
    with stoker(*args, env=minio.env) as server:
        (worker,) = workers(server)
        minio.client().delete_object(Bucket=name, Key="iris/model.onnx")
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: Metrics.of(server).count("stoker_worker_restarts_total", reason="killed") == 1, "a restart")
        eventually(server.is_ready, "readiness")


def workers(server):
    return family(server.child.pid)[1:]


def alive(pid):
    try:
        return "\nState:\tZ" not in open(f"/proc/{pid}/status").read()
    except FileNotFoundError:
        return False
