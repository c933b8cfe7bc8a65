"""Under load requests are joined into batches, and still every caller gets the answer to its own request."""

import http.client
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput

from metrics import Metrics
from models import MODELS, assert_same, datatype, reference
from servers import PATIENCE, stoker

CALLERS, REQUESTS_EACH = 32, 20


def identity(random):
    """Random bits in every dtype; the answer is the question."""
    rows = int(random.integers(1, 5))
    inputs = {name: noise(random, array.dtype, (rows, 2)) for name, array in reference("identity")[0][0].items()}
    return inputs, {name.replace("in_", "out_"): array for name, array in inputs.items()}


def noise(random, dtype, shape):
    if dtype == object:
        # Text: ONNX strings are UTF-8.
        texts = [random.bytes(random.integers(0, 20)).hex().encode() for _ in range(np.prod(shape))]
        return np.array(texts, object).reshape(shape)
    if dtype == bool:
        return random.integers(0, 2, shape).astype(bool)
    return np.frombuffer(random.bytes(np.prod(shape) * dtype.itemsize), dtype).reshape(shape)


def variable(random):
    """Rows of several lengths, so that not every two requests can be joined."""
    shape = (random.integers(1, 5), random.integers(1, 4))
    x = random.uniform(-1e6, 1e6, shape).astype(np.float32)
    return {"x": x}, {"doubled": x + x}


def ask(connection, model, inputs):
    tensors = [InferInput(name, x.shape, datatype(x)).set_data_from_numpy(x) for name, x in inputs.items()]
    body, json_length = InferenceServerClient.generate_request_body(tensors)
    headers = {"inference-header-content-length": str(json_length)}
    connection.request("POST", f"/v2/models/{model}/infer", body, headers)
    response = connection.getresponse()
    content = response.read()
    assert response.status == 200, content
    length = int(response.headers["inference-header-content-length"])
    return InferenceServerClient.parse_response_body(content, header_length=length)


@pytest.mark.parametrize("make", [identity, variable])
def test_every_answer_goes_to_its_own_request(make):
    model = make.__name__
    # Waiting a little for company makes batches certain also where 32 Python threads make little load.
    args = [f"--model_name={model}", f"--model_dir={MODELS / model}", "--max_queue_delay_microseconds=5000"]
    with stoker(*args) as server:

        def caller(seed):
            random = np.random.default_rng(seed)
            connection = http.client.HTTPConnection(server.address, timeout=PATIENCE)
            for _ in range(REQUESTS_EACH):
                inputs, expected = make(random)
                answer = ask(connection, model, inputs)
                assert_same({name: answer.as_numpy(name) for name in expected}, expected)
            connection.close()

        with ThreadPoolExecutor(CALLERS) as callers:
            list(callers.map(caller, range(CALLERS)))

        metrics = Metrics.of(server)
        assert metrics["stoker_batch_requests_sum"] == CALLERS * REQUESTS_EACH
        assert metrics["stoker_batch_requests_count"] < CALLERS * REQUESTS_EACH / 2, "hardly any batches: nothing shown"
