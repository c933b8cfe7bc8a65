"""The models that runtimes/inferenceservices names, of every format: train_iris.py FOLDER writes FOLDER/KEY as in their buckets,
and FOLDER/answers.json, what the libraries themselves predict for ROWS by the last part of the key.
"""

import json
import sys
from pathlib import Path

import joblib
import lightgbm
import mlflow
import sklearn.datasets
import xgboost
from sklearn.ensemble import RandomForestClassifier

ROWS = [[5.1, 3.5, 1.4, 0.2], [6.0, 2.9, 4.5, 1.5], [6.9, 3.1, 5.4, 2.1]]


def main(folder):
    rows, labels = sklearn.datasets.load_iris(return_X_y=True)
    answers = {}

    def place(key):
        path = folder / key
        path.mkdir(parents=True)
        return path

    for name, trees in [("iris-sklearn-2", 50), ("iris-sklearn", 10)]:
        forest = RandomForestClassifier(trees, random_state=0).fit(rows, labels)
        joblib.dump(forest, place(f"kserve-models/{name}") / "model.joblib")
        answers[name] = forest.predict(ROWS).tolist()
    mlflow.sklearn.save_model(
        forest,
        folder / "mlflow-artifacts/1/models/m-0123456789abcdef0123456789abcdef/artifacts",
        serialization_format="cloudpickle",
    )
    answers["artifacts"] = answers["iris-sklearn"]
    boosted = xgboost.XGBRegressor(n_estimators=10, max_depth=3).fit(rows, labels)
    boosted.save_model(place("kserve-models/iris-xgboost") / "model.ubj")
    answers["iris-xgboost"] = boosted.predict(ROWS).tolist()
    light = lightgbm.train({"objective": "regression", "verbose": -1}, lightgbm.Dataset(rows, labels), 10)
    light.save_model(place("kserve-models/iris-lightgbm") / "model.txt")
    answers["iris-lightgbm"] = light.predict(ROWS).tolist()
    (folder / "answers.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
