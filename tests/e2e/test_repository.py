"""Several models in one server (`--model_repository`): each is loaded, asked and unloaded by its name, and what is wrong with
one is no matter of the others."""

import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

import servers
from metrics import Metrics
from models import MODELS
from servers import ROOT, eventually, failure

CASES = ROOT / "tests/tabular/cases"
FOLDERS = {
    "iris": MODELS / "iris",
    "ridge": CASES / "linear_Ridge_one_target",
    "encoder": MODELS / "encoder",
}
ASK = {
    "iris": {"instances": [[5.1, 3.5, 1.4, 0.2]]},
    "ridge": {"instances": [[1.5, -2.0, 0.25, 3.0, -0.5]]},
}


@pytest.fixture
def repository(tmp_path):
    """With three models."""
    for name, folder in FOLDERS.items():
        shutil.copytree(folder, tmp_path / "models" / name)
    return tmp_path / "models"


def serve(repository, *flags, ready=True):
    return servers.stoker(f"--model_repository={repository}", *flags, ready=ready)


def predict(server, name):
    return server.post(f"/v1/models/{name}:predict", ASK[name])


def load(server, name):
    return server.post(f"/v2/repository/models/{name}/load", {})


def unload(server, name):
    return server.post(f"/v2/repository/models/{name}/unload", {})


def index(server):
    listed = server.post("/v2/repository/index", {}).json()
    return {model["name"]: (model["state"], model["reason"]) for model in listed}


def test_all_that_is_there_is_served_and_answers_as_it_does_alone(repository):
    said = {}
    for name in ASK:
        with servers.stoker(f"--model_name={name}", f"--model_dir={FOLDERS[name]}") as alone:
            said[name] = predict(alone, name).json()
    with serve(repository) as server:
        assert server.get("/v1/models").json() == {"models": sorted(FOLDERS)}
        for name in ASK:
            assert predict(server, name).json() == said[name]
        assert {state for state, _ in index(server).values()} == {"READY"}
        answer = server.post("/v1/models/other:predict", {"instances": [[1]]})
        assert (answer.status, answer.json()) == (404, {"error": "Model with name other does not exist."})
        metrics = Metrics.of(server)
        for name in FOLDERS:
            assert metrics.count("stoker_model_state", model=name, state="ready") == 1


def test_one_that_cannot_be_loaded_is_told_of_and_the_others_are_served(repository):
    (repository / "broken").mkdir()
    (repository / "broken/model.onnx").write_bytes(b"this is no model")
    (repository / ".hidden").mkdir()
    (repository / "notes.txt").write_text("no model")
    with serve(repository) as server:
        assert predict(server, "iris").status == 200
        state, reason = index(server)["broken"]
        assert (state, "model.onnx" in reason) == ("UNAVAILABLE", True), reason
        answer = server.get("/v2/models/broken/ready")
        assert answer.status == 503
        answer = server.post("/v1/models/broken:predict", {"instances": [[1]]})
        assert (answer.status, "model.onnx" in answer.json()["error"]) == (503, True)
        event = server.event("the model cannot be served")
        assert (event["model"], event["level"]) == ("broken", "ERROR")
        # Nobody else is kept waiting by one that is loaded later.
        assert load(server, "broken").status == 503 and server.is_ready()
        # Mended, it can be.
        answer = load(server, "broken")
        assert (answer.status, "model.onnx" in answer.json()["error"]) == (503, True)
        shutil.copy(repository / "iris/model.onnx", repository / "broken")
        assert load(server, "broken").status == 200
        assert index(server)["broken"][0] == "READY"


def test_with_none_that_can_be_served_it_is_not_ready(tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/model.onnx").write_bytes(b"this is no model")
    with serve(tmp_path, ready=False) as server:
        server.event("the model cannot be served")
        assert server.get("/v2/health/live").status == 200
        assert server.get("/v2/health/ready").status == 503
        assert unload(server, "broken").status == 200
        shutil.copytree(MODELS / "iris", tmp_path / "iris")
        assert load(server, "iris").status == 200 and server.is_ready()


def test_a_server_that_leaves_while_it_loads_drains_what_is_ready(tmp_path):
    for name in ["iris", "late"]:
        shutil.copytree(MODELS / "iris", tmp_path / name)
    flags = ["--worker=process", "--shutdown_delay_seconds=1"]
    with serve(tmp_path, *flags, ready=False) as server:
        # One model's process is held up while it loads.
        late = eventually(lambda: servers.family(server.child.pid)[1:], "a process")[-1]
        os.kill(late, signal.SIGSTOP)
        ready = lambda: [name for name, (state, _) in index(server).items() if state == "READY"]
        (name,) = eventually(ready, "a model that is ready")
        server.child.send_signal(signal.SIGTERM)
        server.event("shutting down")
        assert server.post(f"/v1/models/{name}:predict", ASK["iris"]).status == 200
        os.kill(late, signal.SIGCONT)
        assert server.wait() == 0


def test_what_waits_is_answered_before_a_model_goes(repository):
    shutil.copytree(MODELS / "slow", repository / "slow")
    body = {"inputs": [{"name": "x", "shape": [1, 64], "datatype": "FP32", "data": [0.5] * 64}]}
    with serve(repository, "--max_batch_size=1") as server, ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(server.post, "/v2/models/slow/infer", body) for _ in range(20)]
        waiting = lambda: Metrics.of(server).count("stoker_queue_requests", model="slow") > 0
        eventually(waiting, "a queue")
        assert unload(server, "slow").status == 200
        answers = [answer.result() for answer in asked]
        # Those that had not reached the model are told that it is going, or gone.
        assert {answer.status for answer in answers} <= {200, 503, 404}
        assert sum(answer.status == 200 for answer in answers) > 1
        assert predict(server, "iris").status == 200


def test_loaded_and_unloaded_200_times_memory_comes_back(repository):
    def resident(server):
        status = open(f"/proc/{server.child.pid}/status").read()
        return int(status.split("VmRSS:")[1].split()[0])

    def threads(server):
        status = open(f"/proc/{server.child.pid}/status").read()
        return int(status.split("Threads:")[1].split()[0])

    with serve(repository, "--model_control_mode=explicit", "--load_model=ridge") as server:
        kept = []
        for cycle in range(200):
            for name in ["iris", "encoder"]:
                assert load(server, name).status == 200
            assert predict(server, "iris").status == 200
            for name in ["iris", "encoder"]:
                assert unload(server, name).status == 200
            kept.append((resident(server), threads(server)))
        # After the first have made libraries take what they keep.
        (before, threads_before), (after, threads_after) = max(kept[20:40]), max(kept[-20:])
        assert after < before * 1.1 and threads_after <= threads_before + 2, (kept[0], before, after, threads_after)
        assert predict(server, "ridge").status == 200
        states = [sample for sample in Metrics.of(server).samples if sample.name == "stoker_model_state"]
        assert {sample.labels["model"] for sample in states} == {"ridge"}


def test_what_cannot_be_meant_is_refused(tmp_path, repository):
    for flags, what in [
        ([f"--model_repository={tmp_path / 'none'}"], "No such file"),
        ([f"--model_repository={repository / 'iris'}"], "has no models"),
        ([f"--model_repository={repository}", "--model_control_mode=explicit", "--load_model=other"], "does not exist"),
    ]:
        assert what in failure(*flags), flags
