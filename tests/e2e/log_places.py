"""Logs one small model to each kind of place that MLflow keeps artifacts in; runs in the environment of tests/tabular.

Prints one JSON line for each: the place's name, which is the model's, the run's and the model's id, and predictions.
"""

import json
import sys
from pathlib import Path

import mlflow
import mlflow.sklearn
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

FOLDER = Path(sys.argv[1])
PLACES = {"bucket": "s3://mlflow-artifacts/direct", "served": None, "local": f"file://{FOLDER}/local"}


def log(name, model, rows):
    with mlflow.start_run() as run:
        logged = mlflow.sklearn.log_model(model, name="model", registered_model_name=name)
        # Beside the model, among the run's own artifacts.
        (FOLDER / "large.bin").write_bytes(bytes(range(256)) * 40_000)
        (FOLDER / "ü 1.txt").write_text("odd")
        mlflow.log_artifact(FOLDER / "large.bin", "data/deep")
        mlflow.log_artifact(FOLDER / "ü 1.txt", "data")
    version = mlflow.MlflowClient().get_latest_versions(name)[0].version
    mlflow.MlflowClient().set_registered_model_alias(name, "champion", version)
    return {"run": run.info.run_id, "model": logged.model_id, "predictions": model.predict(rows).tolist()}


def main():
    x, y = load_iris(return_X_y=True)
    rows = x[::30]
    model = LogisticRegression(max_iter=1000).fit(x, y)
    for name, location in PLACES.items():
        mlflow.set_experiment(experiment_id=mlflow.create_experiment(name, artifact_location=location))
        report = log(name, model, rows)
        print(json.dumps({"name": name, "rows": rows.tolist(), **report}), flush=True)
    # The same weights but for their order: of the same size, and another model.
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("moved"))
    before = log("moved", model, rows)
    after = log("moved", LogisticRegression(max_iter=1000).fit(x, (y + 1) % 3), rows)
    print(json.dumps({"name": "moved", "rows": rows.tolist(), "before": before, **after}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
