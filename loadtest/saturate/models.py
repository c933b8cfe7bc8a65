"""Models that keep a processor busy, with made-up weights: python models.py FOLDER writes FOLDER/NAME/model.onnx of each."""

import sys
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper


class Graph:
    """Nodes one after the other, with made-up weights."""

    def __init__(self):
        self.random = np.random.default_rng(0)
        self.nodes, self.weights = [], []

    def weight(self, *shape):
        return self.constant((self.random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32))

    def constant(self, array):
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def add(self, kind, inputs, **attributes):
        output = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def write(self, path, output, dims, output_dims):
        self.nodes.append(helper.make_node("Identity", [output], ["y"]))
        x, y = (
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])
            for name, shape in (("x", dims), ("y", output_dims))
        )
        graph = helper.make_graph(self.nodes, "model", [x], [y], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model.SerializeToString())


def cnn(path):
    """Six convolutions of an image."""
    graph = Graph()
    x, channels = "x", 3
    for wide, stride in [(32, 2), (32, 1), (64, 2), (64, 1), (128, 2), (128, 1)]:
        weights = graph.weight(wide, channels, 3, 3)
        x = graph.add("Conv", [x, weights], pads=[1, 1, 1, 1], strides=[stride, stride])
        x, channels = graph.add("Relu", [x]), wide
    x = graph.add("Flatten", [graph.add("GlobalAveragePool", [x])])
    graph.write(path, graph.add("MatMul", [x, graph.weight(128, 10)]), [3, 64, 64], [10])


def mlp(path):
    """The feed-forward layers of a transformer, for sequences of any length."""
    graph = Graph()
    graph.write(path, feed_forward(graph, "x"), ["length", 256], ["length", 256])


def feed_forward(graph, x):
    for _ in range(6):
        up = graph.add("Relu", [graph.add("MatMul", [x, graph.weight(256, 1024)])])
        x = graph.add("Add", [x, graph.add("MatMul", [up, graph.weight(1024, 256)])])
    return x


def short(path):
    """The same of a single token, taken 32 times: small requests that take as long."""
    graph = Graph()
    times = graph.constant(np.array([1, 32, 1]))
    x = graph.add("Tile", ["x", times])
    x = feed_forward(graph, x)
    graph.write(path, graph.add("ReduceMean", [x], axes=[1], keepdims=0), [1, 256], [256])


def mean(path):
    """The same of the mean of any number of values: rows of several shapes take equally long."""
    graph = Graph()
    x = graph.add("MatMul", [graph.add("ReduceMean", ["x"], axes=[1], keepdims=1), graph.weight(1, 256)])
    graph.write(path, feed_forward(graph, x), ["length"], [256])


# By name: how it is made, and the shape of a row.
MODELS = {"cnn": (cnn, [3, 64, 64]), "mlp": (mlp, [32, 256]), "short": (short, [1, 256]), "mean": (mean, [8])}


if __name__ == "__main__":
    for name, (make, _) in MODELS.items():
        make(Path(sys.argv[1]) / name / "model.onnx")
