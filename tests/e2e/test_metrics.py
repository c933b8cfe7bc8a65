"""/metrics says what really happened, and says it in both of Prometheus's formats."""

import http.client
import json

import numpy as np
import pytest
from kserve import InferInput, InferRequest

import faults
from kserve_clients import rpc
from metrics import OPENMETRICS, Metrics
from models import MODELS
from servers import PATIENCE, eventually, stoker

ROW = [5.1, 3.5, 1.4, 0.2]
# Requests of each kind, and the rows of each.
V1, V2, GRPC, REFUSED, LOST = 3, 2, 4, 5, 6
ROWS = 7


@pytest.fixture(scope="module")
def server():
    """A server that has seen a known number of requests of every kind."""
    with stoker("--model_name=iris", f"--model_dir={MODELS / 'iris'}", "--model_version=3") as server:
        rows = [ROW] * ROWS
        tensor = {"name": "float_input", "shape": [ROWS, 4], "datatype": "FP32", "data": rows}
        statuses = [server.post("/v1/models/iris:predict", {"instances": rows}).status for _ in range(V1)]
        statuses += [server.post("/v2/models/iris/infer", {"inputs": [tensor]}).status for _ in range(V2)]
        statuses += [server.post("/v1/models/iris:predict", {"instances": [[1]]}).status for _ in range(REFUSED)]
        statuses += [server.post(f"/v2/models/x{n}/infer", {"inputs": [tensor]}).status for n in range(LOST)]
        assert statuses == [200] * (V1 + V2) + [400] * REFUSED + [404] * LOST

        async def over_grpc(client):
            for _ in range(GRPC):
                tensor = InferInput("float_input", [ROWS, 4], "FP32")
                tensor.set_data_from_numpy(np.array(rows, np.float32))
                await client.infer(InferRequest("iris", [tensor]))

        rpc(server.address, over_grpc)
        yield server


@pytest.fixture(params=[None, OPENMETRICS], ids=["classic", "openmetrics"])
def metrics(server, request):
    return Metrics.of(server, request.param)


def test_requests_are_counted_by_protocol_and_code(metrics):
    def requests(**labels):
        return metrics["stoker_requests_total", labels]

    iris = {"model": "iris", "version": "3"}
    assert metrics.labels("stoker_requests_total") == {frozenset(["model", "version", "protocol", "code"])}
    assert requests(**iris, protocol="v1", code="200") == V1
    assert requests(**iris, protocol="v2", code="200") == V2
    assert requests(**iris, protocol="grpc", code="200") == GRPC
    assert requests(**iris, protocol="v1", code="400") == REFUSED
    # Names that clients make up never become labels: anybody could fill the memory with them.
    assert requests(model="", version="", protocol="v2", code="404") == LOST
    assert requests() == V1 + V2 + GRPC + REFUSED + LOST
    assert metrics["stoker_rejected_total", {"model": "iris", "reason": "invalid"}] == REFUSED
    assert metrics["stoker_rejected_total", {"model": "", "reason": "invalid"}] == LOST
    assert metrics["stoker_goodput_total", iris] == V1 + V2 + GRPC


def test_times_and_sizes_are_observed_once_for_each_request(metrics):
    iris = {"model": "iris", "version": "3"}
    answered = V1 + V2 + GRPC
    # One after another, every request is a batch of its own.
    assert metrics["stoker_batch_requests_count", iris] == metrics["stoker_batch_requests_sum", iris] == answered
    assert metrics["stoker_batch_rows_sum", iris] == answered * ROWS
    assert metrics["stoker_request_duration_seconds_count", iris] == answered + REFUSED
    assert metrics["stoker_queue_duration_seconds_count", iris] == answered
    assert metrics["stoker_compute_duration_seconds_count", {**iris, "device": "cpu"}] == answered
    for direction in ("decode", "encode"):
        assert metrics["stoker_codec_duration_seconds_count", {**iris, "direction": direction}] == answered
    for step in ("preprocess", "predict", "postprocess"):
        assert metrics[f"request_{step}_seconds_count", {"model_name": "iris"}] == answered

    def spent(name, labels):
        return metrics[f"{name}_seconds_sum", labels]

    computing, whole = spent("stoker_compute_duration", iris), spent("stoker_request_duration", iris)
    assert 0 < computing < spent("request_predict", {"model_name": "iris"}) < whole


def test_the_models_state_and_load_are_told(metrics):
    iris = {"model": "iris", "version": "3"}
    assert metrics["stoker_model_state", {**iris, "state": "ready"}] == 1
    assert metrics["stoker_model_state", iris] == 1, "a model is in one state"
    phases = ("resolve", "all_bytes", "place", "parse", "warmup")
    together = sum(metrics["stoker_model_load_seconds", {**iris, "phase": phase}] for phase in phases)
    assert 0 < together <= metrics["stoker_model_load_seconds", {**iris, "phase": "ready"}]
    # Whatever lies beside a model counts as its own: that is where external weights are.
    assert metrics["stoker_model_bytes", iris] == sum(path.stat().st_size for path in (MODELS / "iris").iterdir())


def test_the_process_is_described(metrics):
    assert metrics["stoker_build_info"] == 1
    assert metrics.labels("stoker_build_info") == {frozenset(["version", "commit", "features"])}
    assert 10e6 < metrics["process_resident_memory_bytes"] < 1e9
    assert metrics["process_cpu_seconds_total"] > 0
    assert metrics["process_open_fds"] > 3


def test_both_formats_hold_the_same_samples(server):
    assert Metrics.of(server).identities() == Metrics.of(server, OPENMETRICS).identities()


def test_a_caller_that_goes_away_is_counted(serving):
    slow = serving("slow")
    tensor = {"name": "x", "shape": [5000, 64], "datatype": "FP32", "data": [0.5] * 64 * 5000}
    body = json.dumps({"inputs": [tensor]}).encode()

    def went_away():
        return Metrics.of(slow).count("stoker_rejected_total", reason="cancelled")

    before = went_away()
    connection = http.client.HTTPConnection(slow.address, timeout=PATIENCE)
    connection.request("POST", "/v2/models/slow/infer", body)
    eventually(lambda: Metrics.of(slow)["stoker_inflight_requests"] == 1, "the request in flight")
    connection.close()
    eventually(lambda: went_away() == before + 1, "a cancelled request")
    eventually(lambda: Metrics.of(slow)["stoker_inflight_requests"] == 0, "an idle server")


@pytest.mark.parametrize("cache", ["disk", "none"])
def test_a_model_on_its_way_is_seen_to_come(minio, bucket, tmp_path, cache):
    half = 512 << 10
    uri = f"s3://{bucket({'m/model.onnx': bytes(2 * half)})}/m"
    args = ["--model_name=m", f"--storage_uri={uri}", f"--cache_dir={tmp_path if cache == 'disk' else cache}"]
    with faults.proxy(minio.port) as proxy:
        proxy.script("read", faults.stall(half))
        with stoker(*args, env=minio.env | {"AWS_ENDPOINT_URL": proxy.url}, ready=False) as server:
            eventually(lambda: Metrics.of(server).count("stoker_source_bytes_total", scheme="s3") == half, "half of it")
            assert Metrics.of(server)["stoker_source_bytes_left", {"model": "m"}] == half
