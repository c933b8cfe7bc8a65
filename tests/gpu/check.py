#!/usr/bin/env python3
"""What can only be seen on a GPU: `make gpu-test`, or on a machine without Rust

    tests/gpu/check.py --stoker PROGRAM --onnxruntime LIBRARY

which needs Python with NumPy, and the CUDA libraries of ONNX Runtime's provider on LD_LIBRARY_PATH. `--device cpu` runs the
same checks there, as far as they mean something: for who writes them without a GPU.
"""

import argparse
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "tests/models"
PATIENCE = 120
# CUDA multiplies FP32 with the ten bits of mantissa that TF32 has.
TOLERANCE = {"rtol": 5e-3, "atol": 1e-3}
DTYPES = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "INT32": np.int32, "INT64": np.int64}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stoker", default=ROOT / "target/release/stoker", type=Path)
    parser.add_argument("--onnxruntime", type=Path, help="of onnxruntime-gpu, with its providers beside it")
    parser.add_argument("--device", default="gpu", choices=["gpu", "cpu"])
    args = parser.parse_args()
    program = Program(args.stoker, args.onnxruntime, args.device)
    print(json.dumps(program.devices(), indent=1))
    failed = 0
    for check in [same_as_nvidia_smi, answers, forests, workers, memory_comes_back, too_large_is_refused]:
        began = time.monotonic()
        try:
            said, word = check(program), "ok"
        except Exception as error:  # the others are of interest, too
            said, word, failed = f"{type(error).__name__}: {error}", "FAILED", failed + 1
        print(f"{word:<8}{check.__name__}: {said} ({time.monotonic() - began:.1f} s)", flush=True)
    return 1 if failed else 0


class Program:
    def __init__(self, path, library, device):
        self.path, self.device = path, device
        self.flags = [f"--onnxruntime_library={library}"] if library else []

    def devices(self):
        said = subprocess.run([self.path, "devices", "--json"], check=True, capture_output=True).stdout
        return json.loads(said)

    def command(self, *flags):
        fixed = ["--host=127.0.0.1", "--http_port=0", "--log_format=json", f"--device={self.device}"]
        return [self.path, "serve", *fixed, *self.flags, *flags]

    @contextmanager
    def serve(self, *flags):
        with tempfile.TemporaryFile() as log:
            child = subprocess.Popen(self.command(*flags), stderr=log)
            try:
                server = Server(child, log)
                server.until(lambda: server.request("GET", "/v2/health/ready")[0] == 200, "it was ready")
                yield server
            finally:
                child.send_signal(signal.SIGINT)  # which waits for nobody, as SIGTERM would
                child.wait(PATIENCE)


class Server:
    def __init__(self, child, log):
        self.child, self.log = child, log
        listens = lambda: next((event["http"] for event in self.events() if event["message"] == "listening"), None)
        self.address = self.until(listens, "it listened")

    def until(self, condition, what):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if self.child.poll() is not None:
                raise RuntimeError(f"stoker ended before {what}: {self.events()[-1]}")
            if found := condition():
                return found
            time.sleep(0.02)
        raise TimeoutError(what)

    def events(self):
        lines = os.pread(self.log.fileno(), 1 << 26, 0).splitlines()  # the child writes where the file ends
        return [json.loads(line) for line in lines if line.startswith(b"{") and line.endswith(b"}")]

    def request(self, method, path, body=None):
        connection = http.client.HTTPConnection(self.address, timeout=PATIENCE)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def post(self, path, body):
        status, answer = self.request("POST", path, body)
        if status != 200:
            raise RuntimeError(f"{path}: {status}: {answer[:300]}")
        return json.loads(answer)


def same_as_nvidia_smi(program):
    if program.device == "cpu":
        return "nothing to compare"
    listed = subprocess.run(["nvidia-smi", "-L"], check=True, capture_output=True, text=True).stdout
    uuids = [gpu["uuid"] for gpu in program.devices()["topology"]["gpus"]]
    assert uuids and all(uuid in listed for uuid in uuids), f"{uuids} are not all in: {listed}"
    return f"{len(uuids)} GPUs"


def cases(model):
    """The requests of a fixture model and what is expected of them, of those whose outputs are all numbers."""
    for case in json.loads((MODELS / model / "reference.json").read_text())["cases"]:
        if all(tensor["datatype"] in DTYPES for tensor in case["outputs"]):
            yield {"inputs": case["inputs"]}, case["outputs"]


def compare(server, model):
    """How many tensors were as they should be."""
    count = 0
    for request, expected in cases(model):
        outputs = {tensor["name"]: tensor for tensor in server.post(f"/v2/models/{model}/infer", request)["outputs"]}
        for tensor in expected:
            dtype = DTYPES[tensor["datatype"]]
            wanted, got = (np.array(t["data"], dtype).reshape(t["shape"]) for t in (tensor, outputs[tensor["name"]]))
            np.testing.assert_allclose(got, wanted, err_msg=f"{model}: {tensor['name']}", **TOLERANCE)
            count += 1
    return count


def answers(program):
    """Every fixture model, all in one server, answers as on the CPU; and what of it is left there."""
    models = {path.parent.name for path in MODELS.glob("*/reference.json") if any(cases(path.parent.name))}
    models = sorted(models - {"ragged"})  # which is asked with flags of its own
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            shutil.copytree(MODELS / model, Path(folder) / model)
        with program.serve(f"--model_repository={folder}") as server:
            where = {model["name"]: model["reason"] for model in server.post("/v2/repository/index", {})}
            assert sorted(where) == models and all(why.startswith(program.device) for why in where.values()), where
            count = sum(compare(server, model) for model in models)
            metrics = server.request("GET", "/metrics")[1].decode()
            if program.device == "gpu":
                for name in ["busy_seconds_total", "memory_bytes", "info", "healthy"]:
                    assert f"stoker_device_{name}{{" in metrics, name
            left = [event["message"] for event in server.events() if "computed on the CPU" in event["message"]]
            return f"{count} tensors of {len(models)} models; {left}"


FORESTS = ["boosters_xgboost_alone_3", "boosters_lightgbm_alone_3", "explain_forest", "boosters_lightgbm_categories"]


def instances(rows):
    if "matrix" in rows:
        return rows["matrix"]
    names = [column["name"] for column in rows["columns"]]
    return [dict(zip(names, values)) for values in zip(*(column["values"] for column in rows["columns"]))]


def forests(program):
    """Models of trees answer as on the CPU, to the last bit, few rows and many."""
    count, seen = 0, set()
    for name in FORESTS:
        folder = ROOT / "tests/tabular/cases" / name
        case = json.loads((folder / "case.json").read_text())
        rows, answers = instances(case["rows"]), {}
        for device in ["cpu", program.device]:
            there = Program(program.path, None, device)
            with there.serve("--model_name=m", f"--model_dir={folder}") as server:
                for times in [1, -(-20_000 // len(rows))]:  # 20,000 rows are more than a GPU has threads
                    answer = server.post("/v1/models/m:predict", {"instances": rows * times})["predictions"]
                    answers.setdefault(times, []).append(answer)
                seen |= {event["message"] for event in server.events() if "kernels for" in event["message"]}
        for times, (here, there) in answers.items():
            assert here == there, f"{name}, {times} times its rows"
            count += 1
    return f"{count} answers; {sorted(seen)}"


def children(pid):
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def workers(program):
    """A model's process that is killed is back, and nobody notices."""
    request, _ = next(cases("encoder"))
    folder = MODELS / "encoder"
    with program.serve("--model_name=encoder", f"--model_dir={folder}", "--worker=process") as server:
        times = []
        for _ in range(5):
            compare(server, "encoder")
            (pid,) = children(server.child.pid)
            os.kill(pid, signal.SIGKILL)
            began = time.monotonic()
            server.post("/v2/models/encoder/infer", request)
            times.append(time.monotonic() - began)
        (load,) = (event["seconds"] for event in server.events() if event["message"] == "model ready")
        return f"loaded in {load:.2f} s, back after {', '.join(f'{took:.2f}' for took in times)} s"


def memory_comes_back(program):
    """200 times loaded and unloaded."""
    models = ["encoder", "iris"]
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            shutil.copytree(MODELS / model, Path(folder) / model)
        with program.serve(f"--model_repository={folder}", "--model_control_mode=explicit") as server:
            seen = []
            for _ in range(200):
                for what in ["load", "unload"]:
                    for model in models:
                        server.post(f"/v2/repository/models/{model}/{what}", {})
                seen.append(sum(device["memory"]["used"] for device in program.devices()["devices"]))
            before, after = max(seen[20:30]), seen[-1]
            assert after <= before + (16 << 20), f"{before} bytes of devices were used after 30 times, {after} after 200"
            return f"{before >> 20} MiB of devices used after 30 times, {after >> 20} after 200"


def too_large_is_refused(program):
    """Before anything is allocated, and with numbers."""
    if program.device == "cpu":
        return "nothing to fill"
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(MODELS / "slow/model.onnx", folder)
        with open(Path(folder) / "weights.bin", "wb") as weights:
            weights.truncate(max(device["memory"]["total"] for device in program.devices()["devices"]))  # a hole
        command = program.command("--model_name=large", f"--model_dir={folder}")
        ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        assert ended.returncode != 0 and "do not fit" in ended.stderr, ended.stderr[-600:]
        return "refused"


if __name__ == "__main__":
    sys.exit(main())
