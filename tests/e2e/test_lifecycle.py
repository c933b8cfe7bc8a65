"""From start to exit: what a kubelet, a router and an operator see."""

import http.client
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from kserve import InferInput, InferRequest

from kserve_clients import rpc
from metrics import Metrics
from models import MODELS
from servers import PATIENCE, STOKER, eventually, failure, free_port, stoker

IRIS = ["--model_name=iris", f"--model_dir={MODELS / 'iris'}"]
IRIS_BYTES = (MODELS / "iris/model.onnx").read_bytes()
BODY = {"instances": [[5.1, 3.5, 1.4, 0.2]]}


def test_sigterm_finishes_what_is_in_flight():
    """The order of a rolling update: unready at once, still answering while routers learn of it, then drained."""
    args = ["--model_name=slow", f"--model_dir={MODELS / 'slow'}", "--shutdown_delay_seconds=1"]
    with stoker(*args) as server, ThreadPoolExecutor() as background:

        def predict(rows):
            answer = server.post("/v1/models/slow:predict", {"instances": [[0.5] * 64] * rows})
            assert answer.status == 200, answer.body
            return len(answer.json()["predictions"])

        def predict_over_grpc(rows):
            tensor = InferInput("x", [rows, 64], "FP32", [0.5] * 64 * rows)
            answer = rpc(server.address, lambda client: client.infer(InferRequest("slow", [tensor])))
            return answer.outputs[0].shape[0]

        # Kept open and idle, as a router does: it must not hold up the exit.
        idle = http.client.HTTPConnection(server.address)
        idle.request("GET", "/v2/health/ready")
        assert idle.getresponse().read() == b'{"ready":true}'

        started = time.monotonic()
        assert predict(32) == 32
        rows = int(32 * 3 / (time.monotonic() - started))  # as many as take this machine 3 s: more than the delay
        long = [background.submit(send, rows) for send in (predict, predict_over_grpc)]
        eventually(lambda: Metrics.of(server)["stoker_inflight_requests"] == 2, "the requests in flight")
        server.child.send_signal(signal.SIGTERM)
        server.event("shutting down")

        assert server.get("/v2/health/ready").status == 503
        assert server.get("/v2/models/slow/ready").status == 503
        assert server.get("/v2/health/live").status == 200
        assert predict(1) == 1, "new predictions are still welcome"
        eventually(lambda: refuses(server.address), "a closed port")
        assert not any(request.done() for request in long), "nothing outlasted the delay: nothing shown"

        assert [request.result(PATIENCE) for request in long] == [rows, rows]
        assert server.wait() == 0
        assert time.monotonic() - started < PATIENCE
        assert server.events()[-1]["message"] == "model unloaded"


def refuses(address):
    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()
        return False
    except ConnectionRefusedError:
        return True


def test_sigint_does_not_wait_for_routers():
    with stoker(*IRIS, "--shutdown_delay_seconds=60") as server:
        server.child.send_signal(signal.SIGINT)
        assert server.wait() == 0


def test_a_loading_server_is_alive_and_not_ready(silent_s3, tmp_path):
    args = ["--model_name=m", "--storage_uri=s3://bucket/model", f"--cache_dir={tmp_path}"]
    with stoker(*args, env=silent_s3, ready=False) as server:
        assert server.get("/v2/health/live").status == 200
        assert server.get("/v2/health/ready").status == 503
        answer = server.post("/v1/models/m:predict", BODY)
        assert answer.status == 503
        assert answer.json() == {"error": "Model with name m is not ready. It is fetching."}
        server.child.send_signal(signal.SIGTERM)
        assert server.wait() == 0, "SIGTERM while loading"


def test_listen_when_ready_refuses_until_then(silent_s3, tmp_path):
    """For pods whose only probe is a TCP connect."""
    port = free_port()
    args = ["--model_name=m", "--storage_uri=s3://bucket/model", f"--cache_dir={tmp_path}", "--log_level=debug"]
    with stoker(*args, "--listen_when_ready", f"--http_port={port}", env=silent_s3, ready=False) as server:
        assert server.event("model state")["state"] == "fetching"
        assert refuses(f"127.0.0.1:{port}")
    with stoker(*IRIS, "--listen_when_ready") as server:
        messages = [event["message"] for event in server.events()]
        assert messages.index("model ready") < messages.index("listening")
        assert server.post("/v1/models/iris:predict", BODY).status == 200


def test_a_taken_port_is_told():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with stoker(*IRIS, f"--http_port={port}", ready=False) as server:
            assert server.wait() == 1
            assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in server.log()


BROKEN = {
    "corrupt": (b"not a model at all" * 100, "model.onnx"),
    "truncated": (IRIS_BYTES[: len(IRIS_BYTES) // 2], "model.onnx"),
    "empty": (b"", "model.onnx"),
    "no model": (b"weights", "model.pt"),
}


@pytest.mark.parametrize(("content", "file"), BROKEN.values(), ids=BROKEN)
def test_a_broken_model_is_named(tmp_path, content, file):
    (tmp_path / file).write_bytes(content)
    reason = failure("--model_name=m", f"--model_dir={tmp_path}")
    assert str(tmp_path) in reason and file in reason


def test_a_missing_model_is_named(tmp_path):
    missing = tmp_path / "nowhere"
    assert failure("--model_name=m", f"--model_dir={missing}").startswith(f"{missing}: No such file or directory")


def test_a_missing_onnx_runtime_is_told_with_how_to_get_it():
    reason = failure(*IRIS, "--onnxruntime_library=/nonexistent/lib.so")
    assert "looked for /nonexistent/lib.so" in reason
    assert "run runtimes/fetch-onnxruntime" in reason


def test_no_termination_log_is_made_where_there_is_none(tmp_path):
    """A file that nobody mounted would be left on some developer's disk."""
    log = tmp_path / "termination-log"
    with stoker("--model_dir=/nowhere", f"--termination_log={log}", ready=False) as server:
        assert server.wait() == 1
    assert not log.exists()


def test_flags_beat_their_environment_twins():
    port, other = free_port(), free_port()
    env = {"STOKER_HTTP_PORT": other, "STOKER_MODEL_NAME": "twin", "STOKER_MODEL_DIR": MODELS / "iris"}
    with stoker(f"--http_port={port}", env=env) as server:
        assert server.address == f"127.0.0.1:{port}"
        assert server.get("/v1/models").json() == {"models": ["twin"]}
    with stoker(env=env) as server:
        assert server.address == f"127.0.0.1:{other}"


def test_unknown_flags_warn_and_are_ignored():
    """KServe passes flags that only other runtimes have."""
    with stoker(*IRIS, "--frobnicate", "3", "--workers=2") as server:
        warnings = [event["message"] for event in server.events() if event["level"] == "WARN"]
        assert warnings == ["ignored: unknown flag --frobnicate 3", "ignored: unknown flag --workers=2"]


def test_mistaken_flags_are_told_all_at_once():
    with stoker("--http_port=x", "--max_batch_size=0", ready=False) as server:
        assert server.wait() == 1
        for flag in ("--http_port", "--max_batch_size", "--model_dir"):
            assert flag in server.log()


def test_the_version_folder_is_the_version(tmp_path):
    """As `--help` says of --model_version, and as `stoker inspect` shows."""
    (tmp_path / "3").mkdir()
    (tmp_path / "3/model.onnx").write_bytes(IRIS_BYTES)
    with stoker("--model_name=iris", f"--model_dir={tmp_path}") as server:
        assert server.get("/v2/models/iris").json()["versions"] == ["3"]
        assert server.get("/v2/models/iris/versions/3/ready").status == 200


def test_inspect_says_what_would_be_served():
    model = MODELS / "iris"
    said = inspect(model)
    assert said.returncode == 0, said.stderr
    facts = [line.split(maxsplit=1) for line in said.stdout.splitlines()]
    assert ["format", "onnx"] in facts
    assert ["input", "float_input FP32 [-1, 4]"] in facts
    assert ["output", "label INT64 [-1]"] in facts
    assert ["output", "probabilities FP32 [-1, 3]"] in facts
    facts = dict(facts)
    assert facts["file"].startswith(str(model / "model.onnx"))
    assert facts["backend"].startswith("onnxruntime_onnx on cpu")
    assert "MiB once loaded" in facts["memory"]


def test_inspect_tries_what_is_said_of_lengths():
    said = inspect(MODELS / "encoder", "--pad_variable_length_inputs=input_ids=0,attention_mask=0")
    assert "up to 32 rows, which are filled up to the longest" in said.stdout, said.stderr
    said = inspect(MODELS / "encoder", "--pad_variable_length_inputs=input_ids=0,attention_mask=1")
    assert said.returncode == 1 and "does it mask what is?" in said.stderr


def test_inspect_fails_where_serving_would(tmp_path):
    said = inspect(tmp_path)
    assert said.returncode == 1
    assert f"{tmp_path}: no model file found" in said.stderr


def inspect(path, *flags):
    return subprocess.run([STOKER, "inspect", path, *flags], env={}, capture_output=True, text=True, timeout=PATIENCE)
