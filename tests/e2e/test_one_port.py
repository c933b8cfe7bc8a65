"""REST over HTTP/1.1, REST over HTTP/2 and gRPC share a port, since Knative allows only one."""

import json
import shutil
import subprocess

import grpc
import pytest
from kserve import InferInput, InferRequest

from kserve_clients import rpc
from models import MODELS
from servers import PATIENCE, stoker

BODY = {"instances": [[5.1, 3.5, 1.4, 0.2]]}


@pytest.fixture(scope="module")
def server():
    with stoker("--model_name=iris", f"--model_dir={MODELS / 'iris'}", "--grpc_port=0") as server:
        yield server


@pytest.fixture(params=["http", "grpc"])
def address(server, request):
    """The one port, and the second one that --grpc_port opens with the same service."""
    return server.event("listening")[request.param]


def curl(address, path, *options):
    """The HTTP version that was spoken, the status, and the answer."""
    curl = shutil.which("curl")
    if not curl or "HTTP2" not in subprocess.check_output([curl, "--version"], text=True):
        pytest.skip("there is no curl with HTTP/2")
    quiet = ["--silent", "--show-error", "--max-time", str(PATIENCE), "--write-out", "\n%{http_version} %{http_code}"]
    answered = subprocess.check_output([curl, *quiet, *options, f"http://{address}{path}"], text=True)
    body, _, end = answered.rpartition("\n")
    version, status = end.split()
    return version, int(status), body


@pytest.mark.parametrize(("option", "version"), [("--http1.1", "1.1"), ("--http2-prior-knowledge", "2")])
def test_rest(address, option, version):
    assert curl(address, "/v2/health/ready", option) == (version, 200, '{"ready":true}')
    spoken, status, body = curl(address, "/v1/models/iris:predict", option, "--data", json.dumps(BODY))
    assert (spoken, status) == (version, 200)
    assert json.loads(body)["predictions"][0]["label"] == 0


def test_grpc(address):
    rows = InferInput("float_input", [1, 4], "FP32", BODY["instances"][0])
    answer = rpc(address, lambda client: client.infer(InferRequest("iris", [rows])))
    assert answer.get_output_by_name("label").as_numpy().tolist() == [0]


def test_an_unknown_rpc_is_unimplemented(address):
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary("/inference.GRPCInferenceService/Nothing")(b"", timeout=PATIENCE)
    assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED
