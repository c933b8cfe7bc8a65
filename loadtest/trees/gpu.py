"""Trees on a GPU: stoker's kernels and XGBoost's own CUDA predictor, side by side in one run.

    python loadtest/trees/gpu.py --out loadtest/runs

Both answer from rows in the host's memory to answers there; XGBoost also from rows that are on the GPU already, which is its
kernel alone. Needs xgboost and cupy, and target/release/loadtest (make loadtest-program). Without a GPU --device cpu tries the
script itself.
"""

import argparse
import json
import os
import statistics
import tempfile

import numpy as np
import xgboost

from contenders import COLUMNS, Stoker, data, keep, provenance, times

BATCHES = [1, 32, 1024, 32_768, 1_000_000]
# Trees of as many levels.
MODELS = {"500 trees of depth 8": (500, 8), "1,000 trees of depth 6": (1000, 6)}


def train(folder, trees, depth, device):
    path = os.path.join(folder, f"{trees}x{depth}.ubj")
    x, y = data(20_000, 0)
    options = {"max_depth": depth, "eta": 0.05, "tree_method": "hist", "device": device}
    xgboost.train(options, xgboost.DMatrix(x, y), trees).save_model(path)
    return path


def peers(path, device):
    """By name, what takes rows of the host; and what takes rows that have been brought by the second."""
    booster = xgboost.Booster(model_file=path)
    booster.set_param({"device": device})
    if device == "cpu":
        return {"xgboost": (booster.inplace_predict, lambda rows: rows)}
    import cupy

    def there(rows):
        answers = booster.inplace_predict(rows)
        cupy.cuda.Device().synchronize()
        return answers

    return {
        "xgboost": (lambda rows: cupy.asnumpy(booster.inplace_predict(cupy.asarray(rows))), lambda rows: rows),
        "xgboost's kernel": (there, cupy.asarray),
    }


def compare(path, rows_file, x, options):
    stoker = Stoker(options.loadtest, path, rows_file, on_gpu=options.device != "cpu")
    contenders = peers(path, options.device)
    brought = {name: bring(x) for name, (_, bring) in contenders.items()}
    batches = [batch for batch in BATCHES if batch <= len(x)]
    medians = {}
    for _ in range(options.rounds):
        for batch in batches:
            repeats = max(5, min(1000, 200_000 // batch))
            medians.setdefault(("stoker", batch), []).append(statistics.median(stoker.times(batch, repeats)))
            for name, (predict, _) in contenders.items():
                taken = times(predict, brought[name], batch, repeats)
                medians.setdefault((name, batch), []).append(statistics.median(taken))
    stoker.close()
    predict, bring = contenders["xgboost"]
    answers = np.fromfile(stoker.answers, dtype=np.float32)
    microseconds = lambda name, batch: round(statistics.median(medians[name, batch]) / 1000, 2)
    return {
        "load_seconds": stoker.load_seconds,
        "greatest_difference": float(np.max(np.abs(answers - predict(bring(x))))),
        "microseconds": {batch: {name: microseconds(name, batch) for name in ["stoker", *contenders]} for batch in batches},
    }


def device(options):
    if options.device == "cpu":
        return "cpu"
    import cupy

    name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    return f"{name}, driver for CUDA {cupy.cuda.runtime.driverGetVersion()}, cupy {cupy.__version__}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loadtest", default="target/release/loadtest")
    parser.add_argument("--out", default="loadtest/runs")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--rows", type=int, default=max(BATCHES), help="no batch is larger")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    report = {**provenance("loadtest/trees/gpu.py"), "xgboost": xgboost.__version__, "device": device(options), "models": {}}
    with tempfile.TemporaryDirectory() as folder:
        x, _ = data(options.rows, 1)
        rows_file = os.path.join(folder, "rows.f32")
        x.tofile(rows_file)
        for name, (trees, depth) in MODELS.items():
            seen = compare(train(folder, trees, depth, options.device), rows_file, x, options)
            report["models"][name] = seen
            print(f"{name}: {json.dumps(seen)}", flush=True)
    path = keep(report, options.out, f"trees-{options.device}")
    print(path)


if __name__ == "__main__":
    main()
