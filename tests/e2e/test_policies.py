"""charts/mlops-stack's policies, decided by the API server itself."""

import copy

import pytest
import yaml

from cluster import MODULES, api_server, rendered
from servers import ROOT, eventually

CHART = ROOT / "charts/mlops-stack"
DATA = yaml.safe_load((ROOT / "tests/e2e/policies.yaml").read_text())


def made(case):
    """The object of a case."""
    found = copy.deepcopy(DATA[case["object"]])
    found["metadata"]["namespace"] = case["namespace"]
    found["metadata"].setdefault("annotations", {}).update(case.get("annotate", {}))
    for path, value in case.get("set", {}).items():
        *parents, last = path.split(".")
        place = found
        for parent in parents:
            place = place[int(parent)] if isinstance(place, list) else place[parent]
        if isinstance(place, list) and int(last) == len(place):
            place.append(value)
        else:
            place[int(last) if isinstance(place, list) else last] = value
    return found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with api_server(tmp_path_factory.mktemp("policies")) as server:
        server.apply(*rendered(MODULES / "kserve/charts/kserve-crd"))
        server.knows_kinds()
        for name, labels in [("production", {"stoker.dev/environment": "production"}), ("lab", {}), ("gpu-operator", {})]:
            server.namespace(name)
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
            server.apply(namespace)  # without what makes pods of other tests harmless: they do not run
        server.apply(*rendered(CHART, "--set=pipelines.enabled=false", name="mlops", namespace="platform"))
        # They count a moment after they are there.
        for case in DATA["cases"]:
            if "refused" in case:
                eventually(lambda: tried(server, case).returncode, f"the policy of {case['what']}")
        yield server


def tried(cluster, case):
    return cluster.kubectl("create", "--dry-run=server", "-f-", text=yaml.safe_dump(made(case)), check=False)


@pytest.mark.parametrize("case", DATA["cases"], ids=lambda case: case["what"].replace(" ", "-"))
def test_policy(cluster, case):
    done = tried(cluster, case)
    if "refused" in case:
        assert done.returncode and case["refused"] in done.stderr, done.stderr
    else:
        assert done.returncode == 0, done.stderr


def test_policies_can_be_switched_off_or_only_warn(cluster):
    names = lambda *options: [each["metadata"]["name"] for each in rendered(CHART, *options)]
    assert "stoker-gpu-product" not in names("--set=policies.enabled.gpu-product=false")
    bindings = [each for each in rendered(CHART, "--set=policies.enforcement=Warn") if each["kind"].endswith("Binding")]
    assert len(bindings) == 4 and all(each["spec"]["validationActions"] == ["Warn"] for each in bindings)
