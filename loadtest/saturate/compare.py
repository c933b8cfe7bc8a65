"""Saturated: how many rows a second stoker serves one by one, beside what onnxruntime does alone in a loop.

Two models that keep a processor busy (models.py) are made anew each time. The loop runs batches of its best size on the first
CPU that this process may use, one thread, nothing else; stoker serves on the same CPU with one thread, and the generator
(`loadtest run`) asks from the second. They take many short turns: each of stoker's stands beside the mean of the loop's before
and after it, so that the machine's moods strike both.
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
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnxruntime

from models import MODELS

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from serving import serving

ROOT = HERE.parents[1]
LOADTEST = ROOT / "target/release/loadtest"
SIZES = [1, 2, 4, 8, 16, 32]
SATURATED = ["cnn", "mlp"]


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


def ask(name, cpu, url):
    """Rows a second, and rows a batch."""
    with tempfile.TemporaryDirectory() as out:
        command = ["taskset", "-c", str(cpu), LOADTEST, "run", HERE / f"{name}.toml"]
        command += ["--target", url, "--out", out]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        step = json.loads(next(Path(out).glob("*.json")).read_text())["steps"][0]
    assert list(step["all"]["outcomes"]) == ["200"], step["all"]["outcomes"]
    return step["all"]["answered_per_second"], step["mean_batch_rows"]


def measure(name, rounds, seconds, cpus, folder):
    make, dims = MODELS[name]
    path = folder / name / "model.onnx"
    make(path)
    os.sched_setaffinity(0, cpus[:1])
    running = session(path)
    batches = {size: np.random.default_rng(1).random((size, *dims), dtype=np.float32) for size in SIZES}
    alone = {size: loop(running, batch, seconds / 4) for size, batch in batches.items()}
    best = max(alone, key=alone.get)
    with serving(cpus[0], name, folder / name) as url:
        before = loop(running, batches[best], seconds)
        pairs = []
        for _ in range(rounds):
            served, rows = ask(name, cpus[1], url)
            after = loop(running, batches[best], seconds)
            pairs.append(((before + after) / 2, served, rows))
            before = after
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
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "loadtest/runs")
    options = parser.parse_args()
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        sys.exit("two CPUs are needed, one for the server and one for the generator")
    with tempfile.TemporaryDirectory() as folder:
        results = [measure(name, options.rounds, options.seconds, cpus, Path(folder)) for name in SATURATED]
    print("| model | best batch of the loop | loop, rows/s | stoker, rows/s | rows a batch | ratio |")
    print("|---|---:|---:|---:|---:|---:|")
    for result in results:
        rounds = result["rounds"]
        loop, served, rows = (statistics.median(one[key] for one in rounds) for key in ("loop", "served", "rows_a_batch"))
        print(f"| {result['model']} | {result['best_batch']} | {loop:,.1f} | {served:,.1f} | {rows:.1f} | **{result['ratio']:.2f}** |")
    date = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    processor = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    machine = {"processor": processor, "cpus": os.cpu_count(), "kernel": platform.release()}
    report = {"date": date, "commit": commit, "command": sys.argv, "machine": machine, "results": results}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"saturate-{date}.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
