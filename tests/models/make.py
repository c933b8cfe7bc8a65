"""Make the model fixtures: <name>/model.onnx and <name>/reference.json.

The tests need small models whose right answers come from somewhere other than
the server. ONNX Runtime's own Python package is that other source: each
reference.json holds what it computed, as KServe V2 JSON tensors.

Everything is seeded and every name is given, so that a second run writes the
same bytes and a changed file in a diff means a changed model.
"""

import json
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

HERE = Path(__file__).resolve().parent
OPSET = 17
IR_VERSION = 8  # the one that goes with opset 17

# V2 datatype: (ONNX element type, numpy type)
DATATYPES = {
    "BOOL": (TensorProto.BOOL, np.bool_),
    "UINT8": (TensorProto.UINT8, np.uint8),
    "UINT16": (TensorProto.UINT16, np.uint16),
    "UINT32": (TensorProto.UINT32, np.uint32),
    "UINT64": (TensorProto.UINT64, np.uint64),
    "INT8": (TensorProto.INT8, np.int8),
    "INT16": (TensorProto.INT16, np.int16),
    "INT32": (TensorProto.INT32, np.int32),
    "INT64": (TensorProto.INT64, np.int64),
    "FP16": (TensorProto.FLOAT16, np.float16),
    "FP32": (TensorProto.FLOAT, np.float32),
    "FP64": (TensorProto.DOUBLE, np.float64),
    "BYTES": (TensorProto.STRING, np.object_),
}
DATATYPE_OF = {np.dtype(numpy): name for name, (_, numpy) in DATATYPES.items()}


def v2_tensor(name, array):
    """An array as a V2 JSON tensor; Python's float repr brings every FP16 and FP32 back exactly."""
    return {
        "name": name,
        "shape": list(array.shape),
        "datatype": DATATYPE_OF[array.dtype],
        "data": array.ravel().tolist(),
    }


def save(name, model, cases, outputs=None):
    """Write the model, and what ONNX Runtime answers for each case (a dict of input arrays)."""
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    # skl2onnx keeps these in a set, whose order changes from run to run.
    opsets = sorted(model.opset_import, key=lambda opset: opset.domain)
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    (folder / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))

    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    outputs = outputs or [output.name for output in session.get_outputs()]
    lines = []
    for inputs in cases:
        answers = zip(outputs, session.run(outputs, inputs))
        case = {
            "inputs": [v2_tensor(*item) for item in inputs.items()],
            "outputs": [v2_tensor(*item) for item in answers],
        }
        lines.append(json.dumps(case, ensure_ascii=False, allow_nan=False))
    text = '{"cases":[\n' + ",\n".join(lines) + "\n]}\n"
    (folder / "reference.json").write_text(text, encoding="utf-8")


def value(name, datatype, shape):
    """A graph input or output; a string in the shape names a dynamic dimension."""
    return helper.make_tensor_value_info(name, DATATYPES[datatype][0], shape)


def build(name, nodes, inputs, outputs, constants=None):
    """A model from hand-written nodes; `constants` maps a name to its array."""
    initializers = [numpy_helper.from_array(array, key) for key, array in (constants or {}).items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, initializers)
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="stoker")


def fp32(values):
    return np.array(values, dtype=np.float32)


def iris():
    rows, labels = load_iris(return_X_y=True)
    rows = rows.astype(np.float32)
    forest = RandomForestClassifier(n_estimators=50, random_state=0).fit(rows, labels)
    model = convert_sklearn(
        forest,
        name="iris",
        initial_types=[("float_input", FloatTensorType([None, 4]))],
        final_types=[("label", Int64TensorType([None])), ("probabilities", FloatTensorType([None, 3]))],
        options={"zipmap": False},
        target_opset=OPSET,
    )
    picked = rows[::5]  # 30 rows, ten of each class
    batches = np.split(picked, [1, 4])  # 1, 3 and 26 of them
    save("iris", model, [{"float_input": batch} for batch in batches])


def zipmap():
    rows, labels = load_iris(return_X_y=True)
    rows = rows.astype(np.float32)
    model = convert_sklearn(
        LogisticRegression(max_iter=1000).fit(rows, labels),
        name="zipmap",
        initial_types=[("float_input", FloatTensorType([None, 4]))],
        target_opset=OPSET,
    )
    # The probabilities are a sequence of maps, for which V2 has no tensor.
    cases = [{"float_input": rows[:1]}, {"float_input": rows[::50]}]
    save("zipmap", model, cases, outputs=["output_label"])


def identity():
    def name(direction, datatype):
        return f"{direction}_{datatype.lower()}"

    def extremes(datatype):
        """The values most easily damaged on the way: a type's limits, and text that is not ASCII."""
        dtype = DATATYPES[datatype][1]
        if datatype == "BOOL":
            return [[True, False], [False, True]]
        if datatype == "BYTES":
            return [["plain", ""], ["naïve ☕", 'quote " slash \\ newline \n']]
        limits = np.finfo(dtype) if datatype.startswith("FP") else np.iinfo(dtype)
        third = dtype(1) / dtype(3) if datatype.startswith("FP") else dtype(7)
        return [[limits.min, limits.max], [third, 0]]

    model = build(
        "identity",
        [helper.make_node("Identity", [name("in", d)], [name("out", d)]) for d in DATATYPES],
        [value(name("in", d), d, ["batch", 2]) for d in DATATYPES],
        [value(name("out", d), d, ["batch", 2]) for d in DATATYPES],
    )
    full = {name("in", d): np.array(extremes(d), dtype=dtype) for d, (_, dtype) in DATATYPES.items()}
    save("identity", model, [{key: array[:1] for key, array in full.items()}, full])


def two_inputs():
    model = build(
        "two_inputs",
        [
            helper.make_node("Add", ["a", "b"], ["sum"]),
            helper.make_node("ReduceSum", ["sum", "axes"], ["total"], keepdims=0),
        ],
        [value("a", "FP32", ["batch", 3]), value("b", "FP32", ["batch", 3])],
        [value("sum", "FP32", ["batch", 3]), value("total", "FP32", ["batch"])],
        {"axes": np.array([1])},
    )
    one = {"a": fp32([[1, 2, 3]]), "b": fp32([[10, 20, 30]])}
    two = {"a": fp32([[0.5, -1, 4], [0, 0, 0]]), "b": fp32([[0.25, 1, -8], [1e6, -1e6, 7]])}
    save("two_inputs", model, [one, two])


def variable():
    model = build(
        "variable",
        [helper.make_node("Add", ["x", "x"], ["doubled"])],
        [value("x", "FP32", ["rows", "columns"])],
        [value("doubled", "FP32", ["rows", "columns"])],
    )
    cases = [fp32([[1.5]]), fp32([[1, 2, 3], [4, 5, 6]]), fp32([[0.1], [-0.2], [0.3], [1e-3]])]
    save("variable", model, [{"x": case} for case in cases])


def fixed_batch():
    model = build(
        "fixed_batch",
        [helper.make_node("Mul", ["x", "two"], ["scaled"]), helper.make_node("Add", ["scaled", "one"], ["y"])],
        [value("x", "FP32", [1, 4])],
        [value("y", "FP32", [1, 4])],
        {"two": fp32(2), "one": fp32(1)},
    )
    save("fixed_batch", model, [{"x": fp32([[0, 1, 2, 3]])}, {"x": fp32([[-0.5, 0.25, 1e3, -7]])}])


def gather():
    model = build(
        "gather",
        [helper.make_node("Gather", ["table", "index"], ["value"])],
        [value("index", "INT64", ["batch", 1])],
        [value("value", "FP32", ["batch", 1])],
        {"table": fp32([0, 1.5, 3, 4.5, 6, 7.5, 9, 10.5, 12, 13.5])},
    )
    save("gather", model, [{"index": np.array([[7]])}, {"index": np.array([[0], [9], [4]])}])


def free_width():
    model = build(
        "free_width",
        [helper.make_node("MatMul", ["x", "weights"], ["y"])],
        [value("x", "FP32", ["batch", "features"])],
        [value("y", "FP32", ["batch", 2])],
        {"weights": fp32([[1, 2], [4, 8], [16, 32]])},
    )
    save("free_width", model, [{"x": fp32([[1, 1, 1]])}, {"x": fp32([[0.5, 0, -2], [3, 4, 5]])}])


def beside():
    """Weights in files beside the graph, as large models have them."""
    weights = {"weights": ("deep/weights.bin", fp32([[1, 2], [4, 8], [16, 32]])), "bias": ("bias.bin", fp32([0.5, -0.5]))}
    model = build(
        "beside",
        [
            helper.make_node("MatMul", ["x", "weights"], ["product"]),
            helper.make_node("Add", ["product", "bias"], ["y"]),
        ],
        [value("x", "FP32", ["batch", 3])],
        [value("y", "FP32", ["batch", 2])],
        {name: array for name, (_, array) in weights.items()},
    )
    for initializer in model.graph.initializer:
        place, array = weights[initializer.name]
        path = HERE / "beside" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(array.tobytes())
        set_external_data(initializer, place)
        initializer.ClearField("raw_data")
    save("beside", model, [{"x": fp32([[1, 1, 1]])}, {"x": fp32([[0.5, 0, -2], [3, 4, 5]])}])


def time_first():
    model = build(
        "time_first",
        [helper.make_node("CumSum", ["x", "axis"], ["y"])],
        [value("x", "FP32", ["time", 2])],
        [value("y", "FP32", ["time", 2])],
        {"axis": np.array(0)},
    )
    save("time_first", model, [{"x": fp32([[1, 1]] * steps)} for steps in (1, 3, 40)])


def nonzero():
    model = build(
        "nonzero",
        [helper.make_node("NonZero", ["x"], ["found"]), helper.make_node("Transpose", ["found"], ["places"])],
        [value("x", "FP32", ["batch", 3])],
        [value("places", "INT64", ["count", 2])],
    )
    save("nonzero", model, [{"x": fp32([[0, 2, 0], [1, 1, 0]])}, {"x": fp32([[0, 0, 7]])}])


def one_hot():
    model = build(
        "one_hot",
        [helper.make_node("OneHotEncoder", ["x"], ["y"], domain="ai.onnx.ml", cats_int64s=[7, 8], zeros=0)],
        [value("x", "INT64", ["batch"])],
        [value("y", "FP32", ["batch", 2])],
    )
    save("one_hot", model, [{"x": np.array([7])}, {"x": np.array([8, 7, 8])}])


def slow():
    """h = tanh(h W + x), iterated STEPS times from 0.

    W shrinks distances, so h settles on one point per row of x: however long
    the loop, rounding differences between machines die out instead of growing.
    """
    steps = 25_000
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["still_go_on"]),
            helper.make_node("MatMul", ["h", "weights"], ["mixed"]),
            helper.make_node("Add", ["mixed", "x"], ["moved"]),
            helper.make_node("Tanh", ["moved"], ["h_next"]),
        ],
        "step",
        [value("step", "INT64", []), value("go_on", "BOOL", []), value("h", "FP32", ["batch", 64])],
        [value("still_go_on", "BOOL", []), value("h_next", "FP32", ["batch", 64])],
    )
    random = np.random.default_rng(0)
    model = build(
        "slow",
        [
            helper.make_node("Sub", ["x", "x"], ["start"]),
            helper.make_node("Loop", ["steps", "", "start"], ["y"], body=body),
        ],
        [value("x", "FP32", ["batch", 64])],
        [value("y", "FP32", ["batch", 64])],
        {"steps": np.array(steps), "weights": fp32(random.standard_normal((64, 64)) / 32)},
    )
    save("slow", model, [{"x": fp32(random.standard_normal((batch, 64)))} for batch in (1, 3)])


def encoder():
    """Texts of any length: embeddings, two layers of attention that the mask keeps to the text, and their mean over it."""
    width, inner = 32, 128
    random = np.random.default_rng(0)
    constants = {
        "words": fp32(random.standard_normal((100, width))),
        "one": fp32(1),
        "far": fp32(-1e9),
        "scale": fp32(1 / np.sqrt(width)),
        "second": np.array([1]),
        "last": np.array([2]),
    }
    nodes = []

    def node(kind, inputs, output, **attributes):
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def weights(name, *shape):
        constants[name] = fp32(random.standard_normal(shape) / np.sqrt(shape[0]))
        return name

    on = node("Cast", ["attention_mask"], "on", to=TensorProto.FLOAT)
    off = node("Sub", ["one", on], "off")
    away = node("Unsqueeze", [node("Mul", [off, "far"], "away"), "second"], "away_keys")
    hidden = node("Gather", ["words", "input_ids"], "embedded")
    for layer in "ab":
        query, key, content = (
            node("MatMul", [hidden, weights(f"{part}_{layer}", width, width)], f"{part}s_{layer}")
            for part in ("query", "key", "content")
        )
        turned = node("Transpose", [key], f"turned_{layer}", perm=[0, 2, 1])
        scores = node("Mul", [node("MatMul", [query, turned], f"products_{layer}"), "scale"], f"scores_{layer}")
        shares = node("Softmax", [node("Add", [scores, away], f"masked_{layer}")], f"shares_{layer}", axis=-1)
        seen = node("Add", [hidden, node("MatMul", [shares, content], f"seen_{layer}")], f"attended_{layer}")
        up = node("Relu", [node("MatMul", [seen, weights(f"up_{layer}", width, inner)], f"up_{layer}s")], f"active_{layer}")
        hidden = node("Add", [seen, node("MatMul", [up, weights(f"down_{layer}", inner, width)], f"down_{layer}s")], f"out_{layer}")
    node("Identity", [hidden], "last_hidden_state")
    kept = node("Mul", [hidden, node("Unsqueeze", [on, "last"], "on_rows")], "kept")
    total = node("ReduceSum", [kept, "second"], "total", keepdims=0)
    node("Div", [total, node("ReduceSum", [on, "second"], "count", keepdims=1)], "sentence_embedding")
    texts = ["batch", "sequence"]
    model = build(
        "encoder",
        nodes,
        [value("input_ids", "INT64", texts), value("attention_mask", "INT64", texts)],
        [value("last_hidden_state", "FP32", [*texts, width]), value("sentence_embedding", "FP32", ["batch", width])],
        constants,
    )

    def case(*lengths):
        mask = np.array([[int(at < length) for at in range(max(lengths))] for length in lengths])
        return {"input_ids": random.integers(0, 100, mask.shape) * mask, "attention_mask": mask}

    save("encoder", model, [case(1), case(5), case(3, 7, 2)])


def ragged():
    """Rows one behind the other, `ends` says where each ends: their sums, and each element less its row's sum."""
    nodes = [
        helper.make_node("CumSum", ["values", "zero"], ["sums"]),
        helper.make_node("Sub", ["ends", "step"], ["lasts"]),
        helper.make_node("Gather", ["sums", "lasts"], ["up_to"]),
        helper.make_node("Slice", ["up_to", "from", "to"], ["heads"]),
        helper.make_node("Concat", ["nothing", "heads"], ["before"], axis=0),
        helper.make_node("Sub", ["up_to", "before"], ["total"]),
        # An element's row is the number of rows that end at or before it.
        helper.make_node("Shape", ["values"], ["count"]),
        helper.make_node("Squeeze", ["count"], ["elements"]),
        helper.make_node("Range", ["zero", "elements", "one"], ["places"]),
        helper.make_node("Unsqueeze", ["places", "second"], ["each"]),
        helper.make_node("GreaterOrEqual", ["each", "ends"], ["is_after"]),
        helper.make_node("Cast", ["is_after"], ["after"], to=TensorProto.INT64),
        helper.make_node("ReduceSum", ["after", "second"], ["row"], keepdims=0),
        helper.make_node("Gather", ["total", "row"], ["own"]),
        helper.make_node("Sub", ["values", "own"], ["rest"]),
    ]
    model = build(
        "ragged",
        nodes,
        [value("values", "FP32", ["elements"]), value("ends", "INT64", ["batch"])],
        [value("total", "FP32", ["batch"]), value("rest", "FP32", ["elements"])],
        {
            "zero": np.array(0),
            "one": np.array(1),
            "step": np.array([1]),
            "from": np.array([0]),
            "to": np.array([-1]),
            "second": np.array([1]),
            "nothing": fp32([0]),
        },
    )
    save("ragged", model, [{"values": fp32([1, 2, 3, 4, 5]), "ends": np.array([2, 5])}])


if __name__ == "__main__":
    models = (iris, identity, two_inputs, variable, fixed_batch, gather, free_width, beside, time_first, nonzero, one_hot)
    for make in (*models, slow, zipmap, encoder, ragged):
        make()
