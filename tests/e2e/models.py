"""The fixture models' tensors as arrays, and what ONNX Runtime's own Python package computes from them."""

import json
from functools import cache

import numpy as np
import onnxruntime

from servers import ROOT

MODELS = ROOT / "tests/models"
# Of the server and of the Python package alike: a forest sums its trees in as many pieces as there are threads, and
# float sums depend on their order.
THREADS = 2

DTYPES = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}


def datatype(array):
    """V2's name of an array's type."""
    return next(name for name, dtype in DTYPES.items() if array.dtype == dtype)


def reference(model):
    """The cases of a model's reference.json: pairs of inputs and outputs, each by name."""
    cases = json.loads((MODELS / model / "reference.json").read_text())["cases"]
    return [(arrays(case["inputs"]), arrays(case["outputs"])) for case in cases]


def arrays(tensors):
    return {tensor["name"]: array(tensor) for tensor in tensors}


def array(tensor):
    """A V2 JSON tensor as an array; strings as bytes, which is what they are in V2."""
    data = tensor["data"]
    if tensor["datatype"] == "BYTES":
        data = [text.encode() for text in data]
    return np.array(data, DTYPES[tensor["datatype"]]).reshape(tensor["shape"])


@cache
def session(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    path = str(MODELS / model / "model.onnx")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def computed(model, inputs):
    """The outputs by name, from ONNX Runtime's Python package."""
    outputs = session(model).get_outputs()
    return dict(zip([output.name for output in outputs], session(model).run(None, inputs), strict=True))


def assert_same(got, expected):
    """Every array by name, in type, shape and bits: NaN is NaN, and 0.0 is not -0.0."""
    assert list(got) == list(expected)
    for name, array in expected.items():
        assert (got[name].dtype, got[name].shape) == (array.dtype, array.shape), name
        same = got[name].tolist() == array.tolist() if array.dtype == object else got[name].tobytes() == array.tobytes()
        assert same, f"{name}: got {got[name]}, expected {array}"
