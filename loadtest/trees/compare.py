"""Forests in stoker and in their own libraries, one thread each, side by side in one run.

    python loadtest/trees/compare.py --loadtest target/release/loadtest --out loadtest/runs

Trains each model once (cached in --work), then in every round times every contender on every batch size in turn, so that
what disturbs the machine disturbs all. Reported is the median of the rounds' medians; ratios are to the best library
on the same model. Needs: pip install -r loadtest/trees/requirements.txt, and a C compiler for tl2cgen.
"""

import argparse
import os
import statistics
import sys

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import joblib  # noqa: E402
import lightgbm  # noqa: E402
import numpy as np  # noqa: E402
import onnxmltools  # noqa: E402
import onnxruntime  # noqa: E402
import skl2onnx  # noqa: E402
import tl2cgen  # noqa: E402
import treelite  # noqa: E402
import xgboost  # noqa: E402
from onnxmltools.convert.common.data_types import FloatTensorType  # noqa: E402
from sklearn.ensemble import RandomForestRegressor  # noqa: E402

from contenders import COLUMNS, Stoker, data, keep, provenance, times  # noqa: E402

BATCHES = [1, 16, 128, 1000, 10_000]


def onnx_session(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda rows: session.run(None, {name: rows})[0].ravel()


def compiled(model, work, name):
    library = os.path.join(work, f"{name}.so")
    if not os.path.exists(library):
        tl2cgen.export_lib(model, toolchain="gcc", libpath=library, params={"parallel_comp": 4}, nthread=2)
    predictor = tl2cgen.Predictor(library, nthread=1)
    return lambda rows: predictor.predict(tl2cgen.DMatrix(rows, dtype="float32")).ravel()


def xgboost_model(work, x, y):
    path = os.path.join(work, "xgboost.ubj")
    if not os.path.exists(path):
        options = {"max_depth": 8, "eta": 0.05, "tree_method": "hist"}
        xgboost.train(options, xgboost.DMatrix(x, y), 500).save_model(path)
    booster = xgboost.Booster(model_file=path)
    booster.set_param({"nthread": 1})
    peers = {
        "xgboost": booster.inplace_predict,
        "tl2cgen": compiled(treelite.frontend.from_xgboost(booster), work, "xgboost"),
        "onnxruntime": onnx_session(
            onnxmltools.convert_xgboost(booster, initial_types=[("x", FloatTensorType([None, COLUMNS]))])
        ),
    }
    return path, peers


def lightgbm_model(work, x, y):
    path = os.path.join(work, "lightgbm.txt")
    if not os.path.exists(path):
        options = {"num_leaves": 127, "learning_rate": 0.05, "verbose": -1}
        lightgbm.train(options, lightgbm.Dataset(x, y), 500).save_model(path)
    booster = lightgbm.Booster(model_file=path)
    peers = {
        "lightgbm": lambda rows: booster.predict(rows, num_threads=1),
        "tl2cgen": compiled(treelite.frontend.load_lightgbm_model(path), work, "lightgbm"),
        "onnxruntime": onnx_session(
            onnxmltools.convert_lightgbm(booster, initial_types=[("x", FloatTensorType([None, COLUMNS]))])
        ),
    }
    return path, peers


def sklearn_model(work, x, y):
    path = os.path.join(work, "forest.joblib")
    if not os.path.exists(path):
        forest = RandomForestRegressor(200, max_depth=12, n_jobs=2, random_state=0).fit(x, y)
        joblib.dump(forest, path)
    forest = joblib.load(path)
    forest.n_jobs = 1
    peers = {
        "scikit-learn": forest.predict,
        "tl2cgen": compiled(treelite.sklearn.import_model(forest), work, "forest"),
        "onnxruntime": onnx_session(
            skl2onnx.to_onnx(forest, x[:1].astype(np.float32), options={})
        ),
    }
    return path, peers


MODELS = {
    "xgboost, 500 trees of depth 8": xgboost_model,
    "lightgbm, 500 trees of 127 leaves": lightgbm_model,
    "scikit-learn, 200 trees of depth 12": sklearn_model,
}


def compare(name, make, options, x_test):
    path, peers = make(options.work, *data(20_000, 0))
    rows = os.path.join(options.work, "rows.f32")
    x_test.tofile(rows)
    stoker = Stoker(options.loadtest, path, rows)
    medians = {}
    for _ in range(options.rounds):
        for batch in BATCHES:
            repeats = max(3, min(200, int(options.rows_per_round / batch)))
            for contender in ["stoker", *peers]:
                if contender == "stoker":
                    taken = stoker.times(batch, repeats)
                else:
                    taken = times(peers[contender], x_test, batch, max(3, repeats // 5))
                medians.setdefault((contender, batch), []).append(statistics.median(taken))
    stoker.close()
    own = next(iter(peers))
    single = name.startswith("xgboost")
    answers = np.fromfile(stoker.answers, dtype=np.float32 if single else np.float64)
    difference = np.max(np.abs(answers - peers[own](x_test)) / np.abs(answers))
    results = {}
    for batch in BATCHES:
        microseconds = {who: statistics.median(medians[who, batch]) / 1000 for who in ["stoker", *peers]}
        best = min(peers, key=lambda peer: microseconds[peer])
        results[batch] = {
            "microseconds": {who: round(value, 2) for who, value in microseconds.items()},
            "best_peer": best,
            "ratio": round(microseconds[best] / microseconds["stoker"], 2),
        }
        print(f"{name}, {batch} rows: {results[batch]}", flush=True)
    return {"load_seconds": stoker.load_seconds, "greatest_relative_difference": float(difference), "batches": results}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loadtest", default="target/release/loadtest")
    parser.add_argument("--work", default="target/trees", help="where models are kept between runs")
    parser.add_argument("--out", default="loadtest/runs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows-per-round", type=int, default=20_000)
    options = parser.parse_args()
    os.makedirs(options.work, exist_ok=True)
    x_test, _ = data(10_000, 1)
    modules = [xgboost, lightgbm, onnxruntime, tl2cgen, treelite, np, sys.modules["sklearn"]]
    report = {
        **provenance("loadtest/trees/compare.py"),
        "versions": {module.__name__: module.__version__ for module in modules},
        "models": {name: compare(name, make, options, x_test) for name, make in MODELS.items()},
    }
    path = keep(report, options.out, "trees")
    print(path)


if __name__ == "__main__":
    main()
