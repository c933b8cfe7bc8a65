"""Writes which version of a model is to be served into Git, pinned to its bytes: all of the traffic, or a part of it beside the
version before; or takes such a canary back. As a branch for people to look at, or to main where a lab wants that. The cluster is
ArgoCD's: this step has no access to it. Leaves {"commit": ..., "branch": ...}.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import yaml
from common import Refused, result
from mlflow import MlflowClient


def git(folder, *args):
    done = subprocess.run(["git", "-C", str(folder), *args], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"git {' '.join(args)}: {done.stderr}")
    return done.stdout.strip()


def shown(folder, commit, path):
    """A file as of a commit, if both are there."""
    done = subprocess.run(["git", "-C", folder, "show", f"{commit}:{path}"], capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else None


def pin(uri):
    """What a URI means now: `stoker pin`."""
    return json.loads(subprocess.run(["stoker", "pin", uri], check=True, stdout=subprocess.PIPE).stdout)


def evidence(args, pinned):
    """Where the model is from, how good it is, who says so, and which bytes it is: what policies/model-evidence.yaml asks for."""
    version = MlflowClient().get_model_version(args.name, args.version)
    return {
        "stoker.dev/holdout-score": version.tags["stoker.dev/holdout-score"],
        "stoker.dev/mlflow-run-id": version.run_id,
        "stoker.dev/model-card": args.model_card,
        "stoker.dev/signed-off-by": args.signed_off_by,
        "stoker.dev/storage-digest": pinned["digest"],
        "stoker.dev/storage-pinned": pinned["uri"],
        "stoker.dev/storage-version": pinned["version"],
    }


def predictor(version, storage_uri, **more):
    model = {"modelFormat": {"name": "mlflow"}, "storageUri": storage_uri, "args": [f"--model_version={version}"]}
    return {**more, "serviceAccountName": "stoker", "model": model}


def alone(args, pinned):
    """All of the traffic."""
    annotations = {"serving.kserve.io/deploymentMode": "Standard", **evidence(args, pinned)}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": args.name, "namespace": args.namespace, "annotations": annotations},
        "spec": {"predictor": predictor(args.version, pinned["storageUri"])},
    }


def beside(before, args, pinned):
    """A part of it. What the canary says of itself wins over what the InferenceService says of the version before."""
    own = predictor(args.version, pinned["storageUri"], name="next", annotations=evidence(args, pinned))
    return before | {"spec": before["spec"] | {"canary": [{"trafficPercent": args.traffic, "predictor": own}]}}


def without_canary(before):
    return before | {"spec": {key: value for key, value in before["spec"].items() if key != "canary"}}


def change(before, args):
    """The manifest as it is to be."""
    if args.take_back:
        if before is None:
            raise Refused(f"{args.path} is not there: nothing to take back")
        return without_canary(before)
    pinned = pin(f"models:/{args.name}/{args.version}")
    is_first = before is None or before["metadata"]["annotations"]["stoker.dev/storage-digest"] == pinned["digest"]
    return alone(args, pinned) if args.traffic == 100 or is_first else beside(before, args, pinned)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", required=True)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--traffic", type=int, default=100, help="percent")
    parser.add_argument("--take-back", action="store_true", help="the canary, instead")
    parser.add_argument("--repository", required=True, help="of Git")
    parser.add_argument("--path", required=True, help="of the manifest in it")
    parser.add_argument("--model-card", required=True)
    parser.add_argument("--signed-off-by", required=True)
    parser.add_argument("--merge", action="store_true", help="to main at once, where nobody has to look at it")
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        git(".", "clone", "--quiet", args.repository, folder)
        branch = "main" if args.merge else f"promote/{args.name}-{args.version}"
        path = Path(folder, args.path)
        before = yaml.safe_load(path.read_text()) if path.exists() else None
        text = yaml.safe_dump(change(before, args), sort_keys=False)
        # Where it is said already: on main, or as a branch that waits to be looked at.
        said = [name for name in ["HEAD", f"origin/{branch}"] if shown(folder, name, args.path) == text]
        if not said:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            what = "Take back" if args.take_back else f"Serve to {args.traffic} %:"
            git(folder, "add", args.path)
            who = ["-c", "user.name=stoker pipelines", "-c", f"user.email={args.signed_off_by}"]
            git(folder, *who, "commit", "--quiet", "-m", f"{what} {args.name} version {args.version}")
            git(folder, "push", "--quiet", *([] if args.merge else ["--force"]), "origin", f"HEAD:{branch}")
        result(args.out, commit=git(folder, "rev-parse", said[0] if said else "HEAD"), branch=branch)


if __name__ == "__main__":
    main()
