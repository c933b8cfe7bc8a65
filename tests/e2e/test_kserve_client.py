"""KServe's own Python clients get from stoker what ONNX Runtime's Python package computes, to the bit."""

import grpc
import httpx
import numpy as np
import pytest
from kserve import InferInput, InferRequest

from kserve_clients import rest, rpc
from models import assert_same, computed, reference

NAMES = ("label", "probabilities")


def batches():
    """Every reference case, and random flowers in batches up to the largest that runs in one piece."""
    random = np.random.default_rng(20)
    cases = [inputs["float_input"] for inputs, _ in reference("iris")]
    return cases + [random.uniform(0, 8, (rows, 4)).astype(np.float32) for rows in (1, 2, 7, 31, 32)]


def v2_request(rows, binary, model="iris"):
    tensor = InferInput("float_input", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows, binary_data=binary)
    return InferRequest(model, [tensor], request_id="echo me", parameters={"binary_data_output": binary})


def outputs(response):
    assert (response.id, response.model_name) == ("echo me", "iris")
    return {output.name: output.as_numpy() for output in response.outputs}


def over_v1(server, rows):
    body = {"instances": rows.tolist()}
    answer = rest("v1", lambda client: client.infer(server.url, body, model_name="iris"))
    assert list(answer) == ["predictions"]
    assert all(tuple(row) == NAMES for row in answer["predictions"])
    dtypes = zip(NAMES, (np.int64, np.float32), strict=True)
    return {name: np.array([row[name] for row in answer["predictions"]], dtype) for name, dtype in dtypes}


def over_v2(binary):
    def ask(server, rows):
        request = v2_request(rows, binary)
        return outputs(rest("v2", lambda client: client.infer(server.url, request, model_name="iris")))

    return ask


def over_grpc(binary):
    def ask(server, rows):
        request = v2_request(rows, binary)
        return outputs(rpc(server.address, lambda client: client.infer(request)))

    return ask


WAYS = {
    "v1": over_v1,
    "v2-json": over_v2(binary=False),
    "v2-binary": over_v2(binary=True),
    "grpc-contents": over_grpc(binary=False),
    "grpc-raw": over_grpc(binary=True),
}


@pytest.mark.parametrize("ask", WAYS.values(), ids=WAYS)
def test_predictions_are_onnx_runtimes_to_the_bit(serving, ask):
    for rows in batches():
        assert_same(ask(serving("iris"), rows), computed("iris", {"float_input": rows}))


def test_a_request_larger_than_a_batch_is_answered_whole(serving):
    """It runs in pieces of 32 rows, and a piece is computed like a request of its own."""
    rows = np.random.default_rng(21).uniform(0, 8, (100, 4)).astype(np.float32)
    pieces = [computed("iris", {"float_input": rows[start : start + 32]}) for start in range(0, 100, 32)]
    expected = {name: np.concatenate([piece[name] for piece in pieces]) for name in NAMES}
    assert_same(over_v2(binary=True)(serving("iris"), rows), expected)


@pytest.mark.parametrize("protocol", ["v1", "v2"])
def test_rest_health(serving, protocol):
    url = serving("iris").url

    async def check(client):
        assert await client.is_server_live(url)
        assert await client.is_model_ready(url, "iris")
        if protocol == "v2":
            assert await client.is_server_ready(url)
            assert not await client.is_model_ready(url, "tulip")

    rest(protocol, check)


def test_grpc_health(serving):
    async def check(client):
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("iris")
        with pytest.raises(grpc.RpcError) as raised:
            await client.is_model_ready("tulip")
        assert raised.value.code() == grpc.StatusCode.NOT_FOUND

    rpc(serving("iris").address, check)


# What a client can get wrong: rows and model name, and the status and message that it reads.
ROW, SHORT_ROW = np.zeros((1, 4), np.float32), np.zeros((1, 3), np.float32)
WRONG_SHAPE = 'input "float_input": expected shape [-1, 4], got [1, 3]'
UNKNOWN_MODEL = "Model with name tulip does not exist."


@pytest.mark.parametrize("protocol", ["v1", "v2"])
@pytest.mark.parametrize(
    ("rows", "model", "status", "message"), [(SHORT_ROW, "iris", 400, WRONG_SHAPE), (ROW, "tulip", 404, UNKNOWN_MODEL)]
)
def test_rest_errors_reach_the_caller(serving, protocol, rows, model, status, message):
    url = serving("iris").url
    body = {"instances": rows.tolist()} if protocol == "v1" else v2_request(rows, binary=True)
    with pytest.raises(httpx.HTTPStatusError) as raised:
        rest(protocol, lambda client: client.infer(url, body, model_name=model))
    assert raised.value.response.status_code == status
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("rows", "model", "code", "message"),
    [
        (SHORT_ROW, "iris", grpc.StatusCode.INVALID_ARGUMENT, WRONG_SHAPE),
        (ROW, "tulip", grpc.StatusCode.NOT_FOUND, UNKNOWN_MODEL),
    ],
)
def test_grpc_errors_reach_the_caller(serving, rows, model, code, message):
    request = v2_request(rows, binary=True, model=model)
    with pytest.raises(grpc.RpcError) as raised:
        rpc(serving("iris").address, lambda client: client.infer(request))
    assert (raised.value.code(), raised.value.details()) == (code, message)
