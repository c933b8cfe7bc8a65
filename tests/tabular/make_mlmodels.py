#!/usr/bin/env python3
"""Writes the `MLmodel` of models that MLflow saves, into `mlmodel/`; no model lies beside them.

Run it with the libraries of `requirements.txt`. Files of MLflow's older versions are in the tests of
`src/formats/mlmodel.rs`.
"""

import pathlib
import shutil
import tempfile
import warnings

import lightgbm
import mlflow.lightgbm
import mlflow.sklearn
import mlflow.xgboost
import numpy as np
import pandas as pd
import xgboost
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, Schema
from sklearn.linear_model import LogisticRegression

warnings.filterwarnings("ignore")
FILES = pathlib.Path(__file__).parent / "mlmodel"
RANDOM = np.random.RandomState(0)
FRAME = pd.DataFrame(RANDOM.rand(24, 3), columns=["a", "petal length (cm)", "sö: 'x'"])
Y = (FRAME["a"] > 0.5).astype(int)


def saved():
    """Flavor, model, options."""
    linear = LogisticRegression().fit(FRAME, Y)
    pickle = {"serialization_format": "cloudpickle"}
    inferred = infer_signature(FRAME, linear.predict(FRAME), params={"threshold": 0.5})
    types = ["double", "string", "datetime", "boolean", "integer", "long", "float"]
    columns = [ColSpec(kind, f"column {kind}", required=kind != "string") for kind in types]
    declared = ModelSignature(Schema(columns), Schema([ColSpec("long", "class")]))
    yield "plain", mlflow.sklearn, linear, pickle
    yield "skops", mlflow.sklearn, linear, {"metadata": {"owner": "me", "tags": ["a", "b"]}}
    yield "inferred", mlflow.sklearn, linear, {**pickle, "signature": inferred, "input_example": FRAME.head(2)}
    yield "declared", mlflow.sklearn, linear, {**pickle, "signature": declared}
    tensor = infer_signature(FRAME.to_numpy(), linear.predict(FRAME))
    yield "tensor", mlflow.sklearn, linear, {**pickle, "signature": tensor, "pyfunc_predict_fn": "predict_proba"}
    size = {"n_estimators": 2}
    yield "xgboost", mlflow.xgboost, xgboost.XGBClassifier(**size).fit(FRAME, Y), {"signature": inferred}
    booster = xgboost.train({}, xgboost.DMatrix(FRAME, Y), 2)
    yield "xgboost_booster", mlflow.xgboost, booster, {"model_format": "json"}
    light = lightgbm.LGBMClassifier(**size, verbose=-1)
    yield "lightgbm", mlflow.lightgbm, light.fit(FRAME.to_numpy(), Y), {"signature": inferred}
    yield "lightgbm_booster", mlflow.lightgbm, light.booster_, {}


def main():
    FILES.mkdir(exist_ok=True)
    for name, flavor, model, options in saved():
        with tempfile.TemporaryDirectory() as folder:
            flavor.save_model(model, f"{folder}/model", **options)
            shutil.copy(f"{folder}/model/MLmodel", FILES / f"{name}.MLmodel")


if __name__ == "__main__":
    main()
