"""Is this model good enough? Its balanced accuracy on data that it has not seen, against a policy and against the champion.

The policy is JSON: {"min_score": 0.9, "max_drop": 0.01}. Leaves {"score": ...}.
"""

import argparse
import json

import mlflow
from common import Refused, columns, read, result, table
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sklearn.metrics import balanced_accuracy_score


def score(uri, features, labels):
    predicted = mlflow.pyfunc.load_model(uri).predict(features)
    return float(balanced_accuracy_score(labels, predicted))


def champion(name):
    """The run of the version that is served now, if one is."""
    try:
        return MlflowClient().get_model_version_by_alias(name, "champion").run_id
    except MlflowException:
        return None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--run-id", required=True)
    parser.add_argument("--holdout", required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--policy", required=True, help="JSON")
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    policy = json.loads(args.policy)
    features, labels, _ = columns(table(read(args.holdout)), args.target)
    classes = sorted(set(labels))
    labels = [classes.index(label) for label in labels]
    own = score(f"runs:/{args.run_id}/model", features, labels)
    MlflowClient().log_metric(args.run_id, "holdout_score", own)
    if own < policy["min_score"]:
        raise Refused(f"run {args.run_id} scores {own:.4f} of at least {policy['min_score']}")
    best = champion(args.name)
    if best and best != args.run_id:
        theirs = score(f"runs:/{best}/model", features, labels)
        if own < theirs - policy["max_drop"]:
            raise Refused(f"run {args.run_id} scores {own:.4f}, and the champion {theirs:.4f}: {policy['max_drop']} less is allowed")
    result(args.out, score=own)


if __name__ == "__main__":
    main()
