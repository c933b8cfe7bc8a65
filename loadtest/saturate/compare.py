"""Saturated: how many rows a second stoker serves one by one, beside what onnxruntime does alone in a loop.

Two models that keep a processor busy, a convolutional network and a stack of feed-forward layers, are made anew each time
(seeded). The loop runs batches of its best size on the first CPU that this process may use, one thread, nothing else; stoker
serves on the same CPU with one thread, and the generator (`loadtest run`) asks from the second. They take turns, round by
round, so that the machine's moods strike both.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
STOKER = ROOT / "target/release/stoker"
LOADTEST = ROOT / "target/release/loadtest"
LIBRARY = ROOT / "target/onnxruntime/libonnxruntime.so.1.31.1"
SIZES = [1, 2, 4, 8, 16, 32]


class Graph:
    """Nodes one after the other, with made-up weights."""

    def __init__(self):
        self.random = np.random.default_rng(0)
        self.nodes, self.weights = [], []

    def weight(self, *shape):
        array = (self.random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def add(self, kind, inputs, **attributes):
        output = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def model(self, output, dims, output_dims):
        self.nodes.append(helper.make_node("Identity", [output], ["y"]))
        value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])
        graph = helper.make_graph(self.nodes, "model", [value("x", dims)], [value("y", output_dims)], self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def cnn():
    graph = Graph()
    x, channels = "x", 3
    for wide, stride in [(32, 2), (32, 1), (64, 2), (64, 1), (128, 2), (128, 1)]:
        weights = graph.weight(wide, channels, 3, 3)
        x = graph.add("Conv", [x, weights], pads=[1, 1, 1, 1], strides=[stride, stride])
        x, channels = graph.add("Relu", [x]), wide
    x = graph.add("Flatten", [graph.add("GlobalAveragePool", [x])])
    return graph.model(graph.add("MatMul", [x, graph.weight(128, 10)]), [3, 64, 64], [10])


def mlp():
    graph = Graph()
    x = "x"
    for _ in range(6):
        up = graph.add("Relu", [graph.add("MatMul", [x, graph.weight(256, 1024)])])
        x = graph.add("Add", [x, graph.add("MatMul", [up, graph.weight(1024, 256)])])
    return graph.model(x, [32, 256], [32, 256])


MODELS = {"cnn": (cnn, [3, 64, 64]), "mlp": (mlp, [32, 256])}


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def loop(running, batch, seconds):
    """Rows a second."""
    rows, begun = 0, time.perf_counter()
    while (took := time.perf_counter() - begun) < seconds:
        running.run(None, {"x": batch})
        rows += len(batch)
    return rows / took


def serve(name, folder, cpu, port):
    command = [STOKER, "serve", "--model_name", name, "--model_dir", folder, "--http_port", str(port)]
    command += ["--host", "127.0.0.1", "--threads", "1", "--onnxruntime_library", LIBRARY, "--log_level", "warn"]
    server = subprocess.Popen(["taskset", "-c", str(cpu), *command])
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=1).close()
            return server
        except OSError:
            time.sleep(0.1)
    server.kill()
    sys.exit("stoker did not become ready")


def ask(name, cpu, port):
    """Rows a second, and rows a batch."""
    with tempfile.TemporaryDirectory() as out:
        command = ["taskset", "-c", str(cpu), LOADTEST, "run", HERE / f"{name}.toml"]
        command += ["--target", f"http://127.0.0.1:{port}", "--out", out]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        step = json.loads(next(Path(out).glob("*.json")).read_text())["steps"][0]
    assert list(step["all"]["outcomes"]) == ["200"], step["all"]["outcomes"]
    return step["all"]["answered_per_second"], step["mean_batch_rows"]


def measure(name, rounds, seconds, cpus, folder):
    make, dims = MODELS[name]
    (folder / name).mkdir()
    path = folder / name / "model.onnx"
    path.write_bytes(make().SerializeToString())
    os.sched_setaffinity(0, cpus[:1])
    running = session(path)
    batches = {size: np.random.default_rng(1).random((size, *dims), dtype=np.float32) for size in SIZES}
    alone = {size: loop(running, batch, seconds / 4) for size, batch in batches.items()}
    best = max(alone, key=alone.get)
    port = 18700 + os.getpid() % 100
    server = serve(name, folder / name, cpus[0], port)
    try:
        pairs = [(loop(running, batches[best], seconds), *ask(name, cpus[1], port)) for _ in range(rounds)]
    finally:
        server.terminate()
        server.wait()
    ratio = statistics.median(served / loop for loop, served, _ in pairs)
    return {
        "model": name,
        "best_batch": best,
        "loop_by_batch": alone,
        "rounds": [{"loop": loop, "served": served, "rows_a_batch": rows} for loop, served, rows in pairs],
        "ratio": ratio,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--out", type=Path, default=ROOT / "loadtest/runs")
    options = parser.parse_args()
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        sys.exit("two CPUs are needed, one for the server and one for the generator")
    with tempfile.TemporaryDirectory() as folder:
        results = [measure(name, options.rounds, options.seconds, cpus, Path(folder)) for name in MODELS]
    print("| model | best batch of the loop | loop, rows/s | stoker, rows/s | rows a batch | ratio |\n|---|---:|---:|---:|---:|---:|")
    for result in results:
        middle = lambda key: statistics.median(one[key] for one in result["rounds"])
        print(
            f"| {result['model']} | {result['best_batch']} | {middle('loop'):,.1f} | {middle('served'):,.1f} "
            f"| {middle('rows_a_batch'):.1f} | **{result['ratio']:.2f}** |"
        )
    date = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    processor = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    machine = {"processor": processor, "cpus": os.cpu_count(), "kernel": platform.release()}
    report = {"date": date, "commit": commit, "command": sys.argv, "machine": machine, "results": results}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"saturate-{date}.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
