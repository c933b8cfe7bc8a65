"""How long stoker takes to be ready with a scikit-learn forest of 100 MB, and what memory that forest takes.

    python loadtest/trees/load.py --stoker target/release/stoker --out loadtest/runs

Trains the forest once (cached in --work) and starts stoker with it, and with a forest of one node, by turns; the
difference of what the two processes hold is the large forest's. Needs: pip install -r loadtest/trees/requirements.txt
"""

import argparse
import json
import os
import statistics
import subprocess
import time
import urllib.request

import joblib
import numpy as np
from sklearn.ensemble import RandomForestRegressor

from contenders import keep, provenance

PORT = 18441


def forest(folder, trees, rows):
    path = os.path.join(folder, "model.joblib")
    if not os.path.exists(path):
        os.makedirs(folder, exist_ok=True)
        rng = np.random.default_rng(0)
        x = rng.normal(size=(rows, 32))
        y = x[:, 0] * x[:, 1] + np.sin(3 * x[:, 2]) + rng.normal(size=rows)
        joblib.dump(RandomForestRegressor(trees, n_jobs=2, random_state=0).fit(x, y), path)
    return path


def layout_bytes(path):
    """Nodes of 8 bytes, a value for each leaf, and the distinct thresholds of each feature."""
    trees = [estimator.tree_ for estimator in joblib.load(path).estimators_]
    nodes = sum(tree.node_count for tree in trees)
    leaves = sum(int(np.sum(tree.children_left < 0)) for tree in trees)
    splits = [np.stack([tree.feature, tree.threshold])[:, tree.children_left >= 0] for tree in trees]
    thresholds = np.unique(np.concatenate(splits, axis=1), axis=1).shape[1]
    return {"nodes": nodes, "leaves": leaves, "thresholds": thresholds, "bytes": 8 * (nodes + leaves + thresholds)}


def status(process):
    with open(f"/proc/{process.pid}/status") as lines:
        fields = dict(line.split(":", 1) for line in lines)
    return {name: int(fields[name].split()[0]) * 1024 for name in ["RssAnon", "VmHWM"]}


def start(stoker, folder):
    args = ["--model_name=m", f"--model_dir={folder}", f"--http_port={PORT}", "--grpc_port=0", "--listen_when_ready"]
    began = time.perf_counter()
    process = subprocess.Popen([stoker, "serve", *args], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while time.perf_counter() - began < 60:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{PORT}/v2/models/m/ready", timeout=1).close()
                return {"seconds": round(time.perf_counter() - began, 3), **status(process)}
            except OSError:
                assert process.poll() is None, "stoker ended"
                time.sleep(0.002)
        raise AssertionError("stoker is not ready after a minute")
    finally:
        process.terminate()
        process.wait(20)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stoker", default="target/release/stoker")
    parser.add_argument("--work", default="target/trees", help="where models are kept between runs")
    parser.add_argument("--out", default="loadtest/runs")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    large = forest(os.path.join(options.work, "large"), 112, 10_000)
    small = forest(os.path.join(options.work, "small"), 1, 2)
    runs = {"large": [], "small": []}
    for _ in range(options.rounds):
        for name, path in [("large", large), ("small", small)]:
            runs[name].append(start(options.stoker, os.path.dirname(path)))
    median = lambda name, field: statistics.median(run[field] for run in runs[name])
    layout = layout_bytes(large)
    taken = median("large", "RssAnon") - median("small", "RssAnon")
    report = {
        **provenance("loadtest/trees/load.py"),
        "file_bytes": os.path.getsize(large),
        "layout": layout,
        "ready_seconds": {"median": median("large", "seconds"), "most": max(run["seconds"] for run in runs["large"])},
        "resident_bytes": taken,
        "resident_by_layout": round(taken / layout["bytes"], 2),
        "peak_bytes": median("large", "VmHWM"),
        "runs": runs,
    }
    path = keep(report, options.out, "load")
    print(json.dumps({name: report[name] for name in report if name != "runs"}, indent=1))
    print(path)


if __name__ == "__main__":
    main()
