"""Triton's own clients, over HTTP and gRPC, find a server that they understand.

Runs in a process of its own: see requirements.txt.
"""

import shutil

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

import servers
from metrics import Metrics
from models import MODELS, assert_same, datatype, reference
from servers import eventually

HTTP, GRPC = tritonclient.http, tritonclient.grpc
INVALID = {HTTP: "400", GRPC: "StatusCode.INVALID_ARGUMENT"}
NOT_FOUND = {HTTP: "404", GRPC: "StatusCode.NOT_FOUND"}
TOO_LARGE = {HTTP: "413", GRPC: "StatusCode.RESOURCE_EXHAUSTED"}
COMPRESSED = {HTTP: "415", GRPC: "StatusCode.UNIMPLEMENTED"}
LATE = {HTTP: "504", GRPC: "StatusCode.DEADLINE_EXCEEDED"}


@pytest.fixture(params=[HTTP, GRPC], ids=["http", "grpc"])
def triton(request):
    """The client module; both have the same classes."""
    return request.param


@pytest.fixture
def connect(triton, serving):
    """Gives a client of a fixture model's server."""
    clients = []

    def client(model):
        clients.append(triton.InferenceServerClient(serving(model).address))
        return clients[-1]

    yield client
    for client in clients:
        client.close()


def tensors(module, inputs, **how):
    return [
        module.InferInput(name, array.shape, datatype(array)).set_data_from_numpy(array, **how)
        for name, array in inputs.items()
    ]


def results(answer, names):
    return {name: answer.as_numpy(name) for name in names}


@pytest.mark.parametrize("model", ["identity", "two_inputs", "variable", "fixed_batch", "gather"])
def test_binary_tensors_in_and_out(triton, connect, model):
    """The clients' default, which carries every dtype."""
    client = connect(model)
    for inputs, expected in reference(model):
        answer = client.infer(model, tensors(triton, inputs), request_id="7")
        head = answer.get_response(**({"as_json": True} if triton is GRPC else {}))
        assert (head["id"], head["model_name"], head["model_version"]) == ("7", model, "1")
        assert_same(results(answer, expected), expected)


def test_json_tensors_in_and_out(serving):
    """Only HTTP has them. FP16 has no JSON form, and so goes as binary between the others."""

    def binary(name):
        return name.endswith("fp16")

    for inputs, expected in reference("identity"):
        sent = [tensors(HTTP, {name: array}, binary_data=binary(name))[0] for name, array in inputs.items()]
        wanted = [HTTP.InferRequestedOutput(name, binary_data=binary(name)) for name in expected]
        with HTTP.InferenceServerClient(serving("identity").address) as client:
            answer = client.infer("identity", sent, outputs=wanted)
        in_json = {output["name"] for output in answer.get_response()["outputs"] if "data" in output}
        assert in_json == set(expected) - {"out_fp16"}
        got = results(answer, expected)
        got["out_bytes"] = np.vectorize(str.encode, otypes=[object])(got["out_bytes"])  # JSON strings are text
        assert_same(got, expected)


def test_only_the_outputs_asked_for_come_back_in_their_order(triton, connect):
    (inputs, expected), *_ = reference("two_inputs")
    for names in (["total"], ["total", "sum"]):
        wanted = [triton.InferRequestedOutput(name) for name in names]
        answer = connect("two_inputs").infer("two_inputs", tensors(triton, inputs), outputs=wanted)
        head = answer.get_response(**({"as_json": True} if triton is GRPC else {}))
        assert [output["name"] for output in head["outputs"]] == names
        assert_same(results(answer, names), {name: expected[name] for name in names})


def test_health(connect):
    client = connect("iris")
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("iris")
    assert client.is_model_ready("iris", "1")


def test_metadata(triton, connect):
    as_json = {"as_json": True} if triton is GRPC else {}
    client = connect("iris")
    server = client.get_server_metadata(**as_json)
    assert (server["name"], server["extensions"]) == ("stoker", ["binary_tensor_data", "model_repository"])
    model = client.get_model_metadata("iris", **as_json)

    def tensor(name, datatype, shape):
        # Protobuf's JSON has 64-bit numbers as strings.
        return {"name": name, "datatype": datatype, "shape": [str(n) for n in shape] if triton is GRPC else shape}

    assert model == {
        "name": "iris",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [tensor("float_input", "FP32", [-1, 4])],
        "outputs": [tensor("label", "INT64", [-1]), tensor("probabilities", "FP32", [-1, 3])],
    }
    assert client.get_model_metadata("iris", "1", **as_json) == model


def test_unknown_models_and_versions(triton, connect):
    client = connect("iris")
    inputs = tensors(triton, {"float_input": np.zeros((1, 4), np.float32)})
    no_model = "Model with name tulip does not exist."
    no_version = "Model with name iris has no version 9, it serves version 1."
    for name, version, message in (("tulip", "", no_model), ("iris", "9", no_version)):
        for ask in (client.infer, client.get_model_metadata):
            with pytest.raises(InferenceServerException) as raised:
                ask(name, inputs, version) if ask == client.infer else ask(name, version)
            assert (raised.value.status(), raised.value.message()) == (NOT_FOUND[triton], message)
        assert_not_ready(triton, client, name, version)


def assert_not_ready(triton, client, name, version):
    if triton is HTTP:
        assert not client.is_model_ready(name, version)
    else:
        with pytest.raises(InferenceServerException) as raised:
            client.is_model_ready(name, version)
        assert raised.value.status() == NOT_FOUND[GRPC]


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ({"float_input": np.zeros((1, 3), np.float32)}, (), "expected shape [-1, 4], got [1, 3]"),
        ({"float_input": np.zeros((1, 4), np.float64)}, (), "expected FP32, got FP64"),
        ({"petals": np.zeros((1, 4), np.float32)}, (), 'unknown input "petals", the model takes "float_input"'),
        ({"float_input": np.zeros((1, 4), np.float32)}, ("smell",), 'unknown output "smell"'),
    ],
)
def test_what_does_not_fit_the_model_is_the_callers_mistake(triton, connect, inputs, outputs, message):
    wanted = [triton.InferRequestedOutput(name) for name in outputs] or None
    with pytest.raises(InferenceServerException) as raised:
        connect("iris").infer("iris", tensors(triton, inputs), outputs=wanted)
    assert raised.value.status() == INVALID[triton]
    assert message in raised.value.message()


def test_a_failing_input_is_an_error_with_the_models_reason(triton, connect):
    """Index 100 of 10 passes every check of the signature and fails inside the model."""
    client = connect("gather")
    with pytest.raises(InferenceServerException) as raised:
        client.infer("gather", tensors(triton, {"index": np.array([[100]])}))
    assert raised.value.status() == INVALID[triton]
    assert "indices element out of data bounds" in raised.value.message()
    assert client.infer("gather", tensors(triton, {"index": np.array([[7]])})).as_numpy("value") == [[10.5]]


def test_a_deadline_is_kept(triton, connect, serving):
    """On the server as well: what nobody waits for any more is not computed."""

    def given_up():
        metrics = Metrics.of(serving("slow"))
        return sum(metrics.count("stoker_rejected_total", reason=reason) for reason in ("deadline", "cancelled"))

    before = given_up()
    rows = tensors(triton, {"x": np.zeros((5000, 64), np.float32)})  # many seconds of computing
    deadline = {"client_timeout": 0.1} if triton is GRPC else {"headers": {"x-request-timeout-ms": "100"}}
    with pytest.raises(InferenceServerException) as raised:
        connect("slow").infer("slow", rows, **deadline)
    assert raised.value.status() == LATE[triton]
    eventually(lambda: given_up() == before + 1, "a request given up")


def test_large_tensors_fit(triton, connect):
    """Far more than HTTP/2's windows and gRPC's usual message limit."""
    x = np.random.default_rng(22).random((4, 1_000_000), np.float32)
    answer = connect("variable").infer("variable", tensors(triton, {"x": x}))
    assert_same(results(answer, ["doubled"]), {"doubled": x + x})


def test_a_body_over_the_limit_is_refused(triton, connect):
    """Also while the client is still sending: it must get to read why."""
    x = np.zeros((1, (64 << 20) // 4), np.float32)
    with pytest.raises(InferenceServerException) as raised:
        connect("variable").infer("variable", tensors(triton, {"x": x}))
    assert raised.value.status() == TOO_LARGE[triton]
    assert "--max_body_bytes" in raised.value.message()


def test_a_compressed_body_is_not_taken_for_a_broken_one(triton, connect):
    x = tensors(triton, {"x": np.ones((1, 3), np.float32)})
    how = {"compression_algorithm" if triton is GRPC else "request_compression_algorithm": "gzip"}
    with pytest.raises(InferenceServerException) as raised:
        connect("variable").infer("variable", x, **how)
    assert raised.value.status() == COMPRESSED[triton]
    assert "gzip" in raised.value.message()


def test_the_model_repository(triton, connect):
    client = connect("iris")
    index = client.get_model_repository_index(**({"as_json": True} if triton is GRPC else {}))
    (model,) = index["models"] if triton is GRPC else index
    assert model.pop("reason").startswith("cpu: the only one with room for ")
    assert model == {"name": "iris", "version": "1", "state": "READY"}
    client.load_model("iris")
    assert client.is_model_ready("iris")
    for ask in [lambda: client.load_model("iris", config="{}"), lambda: client.unload_model("iris")]:
        with pytest.raises(InferenceServerException) as refused:
            ask()
        assert refused.value.status() == {HTTP: "501", GRPC: "StatusCode.UNIMPLEMENTED"}[triton]
    with pytest.raises(InferenceServerException) as refused:
        client.load_model("other")
    assert refused.value.status() == NOT_FOUND[triton]


def test_models_of_a_repository_come_and_go(triton, tmp_path):
    for name in ["iris", "variable"]:
        shutil.copytree(MODELS / name, tmp_path / name)

    def states(client):
        index = client.get_model_repository_index(**({"as_json": True} if triton is GRPC else {}))
        return {model["name"]: model["state"] for model in (index["models"] if triton is GRPC else index)}

    with servers.stoker(f"--model_repository={tmp_path}", "--model_control_mode=explicit") as server:
        client = triton.InferenceServerClient(server.address)
        assert client.is_server_ready() and not is_model_ready(client, "iris")
        assert states(client) == {"iris": "UNAVAILABLE", "variable": "UNAVAILABLE"}
        for _ in range(2):
            client.load_model("iris")
            assert client.is_model_ready("iris")
        assert states(client) == {"iris": "READY", "variable": "UNAVAILABLE"}
        client.unload_model("iris")
        assert client.is_server_ready() and not is_model_ready(client, "iris")
        for ask in [client.load_model, client.unload_model]:
            with pytest.raises(InferenceServerException, match="Model with name other does not exist") as refused:
                ask("other")
            assert refused.value.status() == NOT_FOUND[triton]


def is_model_ready(client, name):
    """The client of gRPC raises where there is none of the name."""
    try:
        return client.is_model_ready(name)
    except InferenceServerException:
        return False
