"""Gives a run's model a version in MLflow's registry, unless it has one, and the alias candidate.

Leaves {"version": ...}.
"""

import argparse

import mlflow
from common import CONTENT_HASH, result
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--run-id", required=True)
    parser.add_argument("--score", required=True)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    client = MlflowClient()
    try:
        client.create_registered_model(args.name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    known = client.search_model_versions(f"name = '{args.name}' and run_id = '{args.run_id}'")
    if known:
        version = known[0].version
    else:
        content_hash = client.get_run(args.run_id).data.tags[CONTENT_HASH]
        version = mlflow.register_model(f"runs:/{args.run_id}/model", args.name, tags={CONTENT_HASH: content_hash}).version
    client.set_model_version_tag(args.name, version, "stoker.dev/holdout-score", args.score)
    client.set_registered_model_alias(args.name, "candidate", version)
    result(args.out, version=str(version))


if __name__ == "__main__":
    main()
