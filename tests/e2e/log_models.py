"""Logs models with a real MLflow client, as a data scientist does; runs in the environment of tests/tabular.

Reads {"tracking_uri": .., } from the environment as MLflow does, and prints one JSON line for each model: its name, its
version's download URI, rows, and what the library predicts for them.
"""

import json
import sys

import lightgbm
import mlflow
import mlflow.lightgbm
import mlflow.sklearn
import mlflow.xgboost
import numpy as np
import xgboost
from mlflow.models import infer_signature
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

ROWS = [0, 60, 77, 120]


def log(flavor, model, name, frame, **options):
    """One run, one registered version. Reports where the registry says that its artifacts lie."""
    with mlflow.start_run():
        flavor.log_model(model, name="model", registered_model_name=name, **options)
    client = mlflow.MlflowClient()
    uri = client.get_model_version_download_uri(name, "1")
    rows = frame.iloc[ROWS]
    report = {
        "name": name,
        "uri": uri,
        "records": rows.to_dict(orient="records"),
        "matrix": rows.to_numpy().tolist(),
        "predictions": np.asarray(model.predict(rows)).tolist(),
    }
    if hasattr(model, "predict_proba"):
        report["probabilities"] = model.predict_proba(rows).tolist()
    print(json.dumps(report), flush=True)


def main():
    # As on a platform where clients write to the bucket.
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("models", artifact_location="s3://mlflow-artifacts"))
    x, y = load_iris(return_X_y=True, as_frame=True)
    forest = RandomForestClassifier(n_estimators=120, random_state=0).fit(x, y)
    log(mlflow.sklearn, forest, "iris-bare-metal", x, serialization_format="cloudpickle")
    trusted = ["sklearn.tree._tree.Tree", "numpy.dtype"]
    log(mlflow.sklearn, forest, "iris-skops", x, skops_trusted_types=trusted)
    signature = infer_signature(x, forest.predict(x))
    logistic = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)
    log(mlflow.sklearn, logistic, "iris-signature", x, signature=signature)

    mixed = x.assign(site=np.where(x.index % 2, "north", "söuth"))
    numeric = list(x.columns)
    columns = ColumnTransformer([("numbers", StandardScaler(), numeric), ("site", OneHotEncoder(), ["site"])])
    pipeline = make_pipeline(columns, LogisticRegression()).fit(mixed, y)
    options = {"serialization_format": "cloudpickle", "signature": infer_signature(mixed, pipeline.predict(mixed))}
    log(mlflow.sklearn, pipeline, "iris-mixed", mixed, **options)

    booster = xgboost.XGBClassifier(n_estimators=10).fit(x, y)
    log(mlflow.xgboost, booster, "iris-xgboost", x)
    light = lightgbm.LGBMClassifier(n_estimators=10, verbose=-1).fit(x, y)
    log(mlflow.lightgbm, light, "iris-lightgbm", x)


if __name__ == "__main__":
    sys.exit(main())
