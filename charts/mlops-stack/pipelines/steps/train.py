"""Trains a classifier and logs it to MLflow, unless the same has been trained of the same data before.

Leaves {"run_id": ..., "content_hash": ...}.
"""

import argparse
import json

import mlflow
from common import CONTENT_HASH, columns, digest, read, result, table
from mlflow.models import infer_signature


def forest(options):
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(**{"n_estimators": 100, "random_state": 0, **options})


def boosted(options):
    from xgboost import XGBClassifier

    return XGBClassifier(**{"n_estimators": 100, "random_state": 0, **options})


ESTIMATORS = {"random-forest": (forest, "sklearn"), "xgboost": (boosted, "xgboost")}


def trained_before(experiment, content_hash):
    """The run that made the same, if it came to its end."""
    where = f"tags.`{CONTENT_HASH}` = '{content_hash}' and attributes.status = 'FINISHED'"
    found = mlflow.search_runs([experiment.experiment_id], where, max_results=1, output_format="list")
    return found[0].info.run_id if found else None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="of the model; its experiment has the same")
    parser.add_argument("--train", required=True, help="s3:// URI or path of a CSV file")
    parser.add_argument("--target", required=True)
    parser.add_argument("--estimator", choices=ESTIMATORS, required=True)
    parser.add_argument("--options", default="{}", help="of the estimator, JSON")
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    content, options = read(args.train), json.loads(args.options)
    content_hash = digest(content, args.target, args.estimator, options)
    experiment = mlflow.set_experiment(args.name)
    run_id = trained_before(experiment, content_hash)
    if run_id is None:
        make, flavor = ESTIMATORS[args.estimator]
        features, labels, names = columns(table(content), args.target)
        classes = sorted(set(labels))
        model = make(options).fit(features, [classes.index(label) for label in labels])
        with mlflow.start_run(tags={CONTENT_HASH: content_hash}) as run:
            mlflow.log_params({"estimator": args.estimator, "rows": len(labels), "columns": names, "classes": classes, **options})
            own = {"serialization_format": "cloudpickle"} if flavor == "sklearn" else {}
            getattr(mlflow, flavor).log_model(model, name="model", signature=infer_signature(features[:1], model.predict(features[:1])), **own)
        run_id = run.info.run_id
    result(args.out, run_id=run_id, content_hash=content_hash)


if __name__ == "__main__":
    main()
