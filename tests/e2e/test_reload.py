"""A model that changes where it comes from: what is served changes with it, and nobody notices but by the answers."""

import json
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

import faults
import servers
from metrics import Metrics
from servers import ROOT, eventually

CASES = ROOT / "tests/tabular/cases"
MODELS = [(CASES / f"linear_{name}/model.joblib").read_bytes() for name in ["Ridge_one_target", "LinearRegression_one_target"]]
ROW = {"instances": [[1.5, -2.0, 0.25, 3.0, -0.5]]}
BROKEN = b"this is no model"


def ask(server):
    return server.post("/v1/models/m:predict", ROW)


def prediction(server):
    answer = ask(server)
    assert answer.status == 200, answer.body
    return said_by(answer)


def said_by(answer):
    """One is a float, the other a list of one."""
    return json.dumps(answer.json()["predictions"][0])


def load(server):
    return server.post("/v2/repository/models/m/load", {"parameters": None})


def reloads(server, outcome):
    return Metrics.of(server).count("stoker_model_reloads_total", model="m", outcome=outcome)


def phases(server):
    """Seconds of each phase of the last load; ready is their sum."""
    samples = Metrics.of(server).samples
    return {s.labels["phase"]: s.value for s in samples if s.name == "stoker_model_load_seconds"}


def replace(path, content):
    """At once, as a careful writer does."""
    path.with_suffix(".new").write_bytes(content)
    path.with_suffix(".new").rename(path)


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What each of the models says."""
    said = []
    for content in MODELS:
        path = tmp_path_factory.mktemp("alone") / "model.joblib"
        path.write_bytes(content)
        with servers.stoker("--model_name=m", f"--model_dir={path}") as server:
            said.append(prediction(server))
    assert said[0] != said[1]
    return said


ONE_RUNS = ["--instances=2", '--rate_limiter={"resources": [{"name": "R", "count": 1}]}', "--rate_limit_resource=R:1"]


@pytest.mark.parametrize("flags", [[], ONE_RUNS], ids=["", "who-share-a-resource"])
def test_every_request_is_answered_while_models_come_and_go(tmp_path, answers, flags):
    path = tmp_path / "model.joblib"
    path.write_bytes(MODELS[0])
    rounds, done = 8, []

    def hammer():
        said = []
        while not done:
            said.append(ask(server))
        return said

    with servers.stoker("--model_name=m", f"--model_dir={tmp_path}", *flags) as server, ThreadPoolExecutor(4) as pool:
        threads = [pool.submit(hammer) for _ in range(4)]
        try:
            for turn in range(1, rounds + 1):
                replace(path, MODELS[turn % 2])
                os.kill(server.child.pid, signal.SIGHUP)
                expected = answers[turn % 2]
                eventually(lambda: prediction(server) == expected, "the other model")
        finally:
            done.append(True)
        said = [answer for thread in threads for answer in thread.result()]
        assert {answer.status for answer in said} == {200}
        assert {said_by(answer) for answer in said} == set(answers)
        assert reloads(server, "swapped") == rounds

        def left():
            return sum(event["message"] == "the version from before has left" for event in server.events())

        eventually(lambda: left() == rounds, "the end of the models from before")


def test_a_newer_version_is_told_to_clients(tmp_path, answers):
    for version in ["1", "2"]:
        (tmp_path / version).mkdir()
    (tmp_path / "1/model.joblib").write_bytes(MODELS[0])
    with servers.stoker("--model_name=m", f"--model_dir={tmp_path}") as server:
        assert ask(server).headers["x-model-version"] == "1"
        (tmp_path / "2/model.joblib").write_bytes(MODELS[1])
        assert load(server).json() == {"name": "m", "load": True}
        answer = ask(server)
        assert (answer.headers["x-model-version"], said_by(answer)) == ("2", answers[1])
        assert server.get("/v2/models/m/versions/1").status == 404
        metrics = Metrics.of(server)
        assert metrics["stoker_model_state", {"version": "2", "state": "ready"}] == 1
        assert metrics["stoker_model_load_seconds", {"version": "2", "phase": "ready"}] > 0
        shutil.rmtree(tmp_path / "2")
        assert load(server).status == 200
        assert ask(server).headers["x-model-version"] == "1"


@pytest.fixture
def store(minio, bucket, tmp_path):
    """Gives a server of the model in a bucket, and what puts another one there."""
    name = bucket({"m/model.joblib": MODELS[0]})

    def put(content):
        minio.client().put_object(Bucket=name, Key="m/model.joblib", Body=content)

    def start(*flags, env={}):
        args = ["--model_name=m", f"--storage_uri=s3://{name}/m", f"--cache_dir={tmp_path}", *flags]
        return servers.stoker(*args, env=minio.env | env)

    return put, start


def test_what_cannot_be_served_does_not_displace_what_is(store, answers):
    put, start = store
    with start() as server:
        assert load(server).status == 200
        assert (reloads(server, "unchanged"), reloads(server, "swapped")) == (1, 0)
        put(BROKEN)
        refused = load(server)
        assert refused.status == 503
        assert refused.json()["error"].startswith("version 1 is served on: ")
        assert "model.joblib" in refused.json()["error"]
        assert prediction(server) == answers[0] and server.is_ready()
        assert reloads(server, "failed") == 1
        assert "model.joblib" in server.event("model not reloaded: the one from before is served on")["error"]
        put(MODELS[1])
        assert load(server).status == 200
        assert prediction(server) == answers[1]
        [before, now] = [answers[1], answers[0]]
        put(MODELS[0])
        assert prediction(server) == before
        os.kill(server.child.pid, signal.SIGHUP)
        eventually(lambda: prediction(server) == now, "the model from the bucket")
        assert server.post("/v2/repository/models/other/load", {}).status == 404


def test_changes_are_seen_by_looking(store, answers):
    put, start = store
    with start("--storage_poll_seconds=0.1") as server:
        for turn in range(1, 3):
            put(MODELS[turn % 2])
            eventually(lambda: prediction(server) == answers[turn % 2], "the model from the bucket")
        put(BROKEN)
        eventually(lambda: reloads(server, "failed") > 0, "a look at the broken model")
        put(MODELS[1])
        eventually(lambda: prediction(server) == answers[1], "the model after the broken one")
        assert reloads(server, "swapped") == 3


def test_a_store_that_fails_once_is_asked_again(minio, store, answers, tmp_path):
    put, start = store
    with faults.proxy(minio.port) as proxy:
        env = {"AWS_ENDPOINT_URL": proxy.url, "S3_MAX_ATTEMPTS": 1}
        with start("--storage_poll_seconds=0.1", env=env) as server:
            assert {"process_start", "first_byte"} <= set(phases(server))
            proxy.script("read", faults.refuse(503, "SlowDown", "slow"), times=1)
            put(MODELS[1])
            eventually(lambda: prediction(server) == answers[1], "the newer model")
            assert (reloads(server, "failed"), reloads(server, "swapped")) == (1, 1)
            # Of what is told of a load, nothing is left from the one before.
            assert "process_start" not in phases(server)
            took = phases(server)
            assert sum(took.values()) == pytest.approx(2 * took["ready"], rel=0.02)


def test_a_store_that_is_away_costs_a_warning(tmp_path, answers):
    with servers.minio() as store:
        servers.fill(store.client(), "models", {"m/model.joblib": MODELS[0]})
        args = ["--model_name=m", "--storage_uri=s3://models/m", f"--cache_dir={tmp_path}", "--storage_poll_seconds=0.1"]
        with servers.stoker(*args, env=store.env) as server:
            store.kill()
            warning = server.event("cannot see whether the model has changed")
            assert warning["level"] == "WARN" and "s3://models/m" in warning["error"]
            assert load(server).status == 503
            assert prediction(server) == answers[0] and server.is_ready()


def test_what_is_pinned_stays(store, answers, tmp_path):
    from test_pin import pin

    put, start = store
    with start() as server:
        uri = server.event("model fetched")["uri"]
    digest = pin({}, next(tmp_path.glob("*/files")), tmp_path)["digest"]
    with start(f"--storage_digest={digest}", "--storage_poll_seconds=0.1") as server:
        put(MODELS[1])
        assert load(server).status == 200
        assert prediction(server) == answers[0], uri
        assert reloads(server, "swapped") == 0


def test_the_index(store):
    _, start = store
    with start() as server:
        for body in [b"", b"{}", b'{"ready": true}']:
            (model,) = server.post("/v2/repository/index", body).json()
            assert model.pop("reason").startswith("cpu: ")
            assert model == {"name": "m", "version": "1", "state": "READY"}
        assert server.post("/v2/repository/index", b"[").status == 400
        assert server.get("/v2/repository/index").status == 405
        unload = server.post("/v2/repository/models/m/unload", {})
        assert (unload.status, "as long as it runs" in unload.json()["error"]) == (501, True)
        config = server.post("/v2/repository/models/m/load", {"parameters": {"config": "{}"}})
        assert (config.status, "takes no parameters" in config.json()["error"]) == (501, True)


def test_many_ask_at_once(store, answers):
    put, start = store
    with start() as server, ThreadPoolExecutor(40) as pool:
        put(MODELS[1])
        statuses = list(pool.map(lambda _: load(server).status, range(40)))
        assert set(statuses) <= {200, 429} and 200 in statuses
        assert prediction(server) == answers[1]
        assert reloads(server, "swapped") == 1


def test_the_cache_keeps_to_its_bound(minio, bucket, tmp_path):
    name, large = bucket({"m/model.joblib": MODELS[0], "m/weights": os.urandom(3 << 20)}), 4 << 20
    flags = ["--model_name=m", f"--storage_uri=s3://{name}/m", f"--cache_dir={tmp_path}", f"--cache_max_bytes={large}"]
    with servers.stoker(*flags, env=minio.env) as server:
        for _ in range(2):
            minio.client().put_object(Bucket=name, Key="m/weights", Body=os.urandom(3 << 20))
            assert load(server).status == 200
        eventually(lambda: len(list(tmp_path.glob("*/files"))) == 1, "the models from before to go")
