"""InferenceServices in a real Kubernetes API with the real KServe: what it makes of our runtimes and examples, and that this
runs: with its own arguments, environment, ports, volumes and probes, in the image's own files.
"""

import json
import subprocess

import pytest

import servers
from cluster import credentials, documents
from pods import Node
from servers import ROOT, eventually
from tracking import PYTHON

EXAMPLES = sorted((ROOT / "runtimes/inferenceservices").glob("*.yaml"))
ROWS = [[5.1, 3.5, 1.4, 0.2], [6.0, 2.9, 4.5, 1.5], [6.9, 3.1, 5.4, 2.1]]


@pytest.fixture(scope="module")
def cluster(kserve_cluster):
    return kserve_cluster


@pytest.fixture(scope="module")
def platform(cluster, tmp_path_factory):
    """The bucket of the examples, and the credentials for it."""
    folder = tmp_path_factory.mktemp("iris")
    subprocess.run([PYTHON, ROOT / "tests/e2e/train_iris.py", folder], check=True, capture_output=True, timeout=120)
    with servers.minio() as minio:
        for bucket in ["kserve-models", "mlflow-artifacts"]:
            paths = [path for path in (folder / bucket).rglob("*") if path.is_file()]
            servers.fill(minio.client(), bucket, {str(path.relative_to(folder / bucket)): path.read_bytes() for path in paths})
        onnx = (ROOT / "tests/models/iris/model.onnx").read_bytes()
        minio.client().put_object(Bucket="kserve-models", Key="iris-onnx/model.onnx", Body=onnx)
        credentials(cluster, minio, "models")
        minio.answers = {"iris-onnx": [0, 1, 2]} | json.loads((folder / "answers.json").read_text())
        yield minio


@pytest.fixture(scope="module")
def node(cluster, tmp_path_factory):
    return Node(tmp_path_factory.mktemp("node"), cluster)


def reconciled(cluster, service, namespace="models"):
    """Applies an InferenceService, and gives what KServe made of its predictor."""
    service["metadata"]["namespace"] = namespace
    cluster.apply(service)
    name = f"{service['metadata']['name']}-predictor"
    return eventually(lambda: cluster.get("deployment", name, namespace), f"{name}: {cluster.controller.log()[-2000:]}")


def service(name):
    """The InferenceService of an example."""
    [found] = [each for each in documents(ROOT / f"runtimes/inferenceservices/{name}.yaml") if each["kind"] == "InferenceService"]
    return found


def container(made):
    """Of a Deployment or a Knative Service: what serves."""
    [found] = [each for each in made["spec"]["template"]["spec"]["containers"] if each["name"] == "kserve-container"]
    return found


def predict(server, model):
    answer = server.request("POST", f"/v1/models/{model}:predict", json.dumps({"instances": ROWS}))
    assert answer.status == 200, answer.body
    predictions = answer.json()["predictions"]
    # Those of the ONNX model come with their probabilities.
    return [each["label"] if isinstance(each, dict) else each for each in predictions]


@pytest.mark.parametrize("name", ["sklearn", "xgboost", "lightgbm", "mlflow", "onnx", "streaming"])
def test_each_format_is_served_as_kserve_starts_it(cluster, platform, node, name):
    wanted = service(name)
    model, uri = wanted["metadata"]["name"], wanted["spec"]["predictor"]["model"]["storageUri"]
    with node.pod(cluster.pod(reconciled(cluster, wanted)), reaches=[platform.port]) as pod, pod.serving() as server:
        assert predict(server, model) == pytest.approx(platform.answers[uri.rsplit("/", 1)[1]])
        for port in [each["containerPort"] for each in server.container["ports"]]:
            assert server.request("GET", f"/v2/models/{model}/ready", port=port).status == 200
        assert b"stoker_build_info" in server.request("GET", "/metrics").body


def test_several_models_in_one_pod(cluster, platform, node):
    with node.pod(cluster.pod(reconciled(cluster, service("several-models"))), reaches=[platform.port]) as pod, pod.serving() as server:
        assert predict(server, "flowers") == platform.answers["iris-sklearn"]
        assert predict(server, "network") == platform.answers["iris-onnx"]


def test_a_canary_beside_the_version_before(cluster, platform, node):
    wanted = service("canary-standard")
    stable = reconciled(cluster, wanted)
    canary = eventually(lambda: cluster.get("deployment", "iris-canary-next-predictor", "models"), "the canary")
    for deployment, version, uri in [(stable, "1", "iris-sklearn"), (canary, "2", "iris-sklearn-2")]:
        with node.pod(cluster.pod(deployment), reaches=[platform.port]) as pod, pod.serving() as server:
            assert predict(server, "iris-canary") == platform.answers[uri]
            assert server.request("GET", "/v2/models/iris-canary").json()["versions"] == [version]


def test_a_pinned_model_is_that_or_nothing(cluster, platform, node):
    wanted = service("pinned")
    storage = wanted["spec"]["predictor"]["model"]["storageUri"]
    done = subprocess.run([servers.STOKER, "pin", storage], env={k: str(v) for k, v in platform.env.items()}, capture_output=True, check=True)
    annotations = wanted["metadata"]["annotations"]
    with pytest.raises(AssertionError, match="is pinned"), node.pod(cluster.pod(reconciled(cluster, wanted)), [platform.port]):
        pass
    annotations["stoker.dev/storage-digest"] = json.loads(done.stdout)["digest"]
    reconciled(cluster, wanted)
    digest = annotations["stoker.dev/storage-digest"]

    def follows():
        made = cluster.get("deployment", "iris-pinned-predictor", "models")
        return made if made["spec"]["template"]["metadata"]["annotations"]["stoker.dev/storage-digest"] == digest else None

    with node.pod(cluster.pod(eventually(follows, "the new digest")), [platform.port]) as pod, pod.serving() as server:
        assert predict(server, "iris-pinned") == platform.answers["artifacts"]


def test_a_model_that_is_not_there_is_told_to_kserve(cluster, platform, node):
    wanted = service("sklearn")
    wanted["metadata"]["name"] = "missing"
    wanted["spec"]["predictor"]["model"]["storageUri"] = "s3://kserve-models/nothing-here"
    pod = cluster.pod(reconciled(cluster, wanted))
    assert pod["spec"]["initContainers"][0]["terminationMessagePolicy"] == "FallbackToLogsOnError"
    with pytest.raises(AssertionError, match="nothing-here"), node.pod(pod, [platform.port]):
        pass


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_taken_in(cluster, platform, path):
    """Strictly, and KServe makes pods of it that the API server takes in, too."""
    for document in documents(path):
        is_knative = document["metadata"].get("annotations", {}).get("serving.kserve.io/deploymentMode") == "Knative"
        namespace = "knative-models" if is_knative else "models"
        if document["kind"] != "InferenceService":
            if document["kind"] in ("Secret", "ServiceAccount"):
                namespace = "stoker"  # the tests' own are in the other one
            cluster.apply(document | {"metadata": document["metadata"] | {"namespace": namespace}})
        elif is_knative:
            cluster.apply(document | {"metadata": document["metadata"] | {"namespace": namespace}})
            name = f"{document['metadata']['name']}-predictor"
            made = eventually(lambda: cluster.get("ksvc", name, namespace), cluster.controller.log()[-2000:])
            assert container(made)["image"].startswith("stoker:")
            assert [port["containerPort"] for port in container(made)["ports"]] == [8080]
        else:
            deployment = reconciled(cluster, document)
            assert container(deployment)["image"].startswith("stoker"), "KServe's own runtimes are there, too"
            cluster.pod(deployment)


def test_what_gpus_are_asked_for(cluster, platform):
    gpu, mig, product = (reconciled(cluster, service(name)) for name in ["gpu", "mig", "gpu-product"])
    for made, resource in [(gpu, "nvidia.com/gpu"), (mig, "nvidia.com/mig-1g.10gb"), (product, "nvidia.com/gpu")]:
        found = container(made)
        assert [name for name in found["resources"]["limits"] if name.startswith("nvidia")] == [resource]
        assert "--device=gpu" in found["args"] and found["image"].startswith("stoker-cuda:")
        assert made["spec"]["template"]["spec"]["tolerations"][0]["key"] == "nvidia.com/gpu"
    [term] = product["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchExpressions"][0]["key"] == "nvidia.com/gpu.product"


def test_scaling_by_what_waits(cluster, platform):
    wanted = service("keda")
    reconciled(cluster, wanted)
    scaled = eventually(lambda: cluster.get("scaledobject", "iris-keda-predictor", "models"), "KEDA's object")
    [trigger] = scaled["spec"]["triggers"]
    metric = wanted["spec"]["predictor"]["autoScaling"]["metrics"][0]["external"]["metric"]
    assert (trigger["type"], trigger["metadata"]["query"]) == ("prometheus", metric["query"])


def test_who_may_do_what(cluster):
    """With the roles of the chart, bound in a namespace: the API server's own decision."""
    for role in ["owner", "viewer"]:
        binding = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": role, "namespace": "models"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": f"stoker-model-{role}"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": role}],
        }
        cluster.apply(binding)
    account = "system:serviceaccount:models:stoker"
    expected = [
        ("owner", "create", "inferenceservices", "models", True),
        ("owner", "get", "pods/log", "models", True),
        ("owner", "create", "inferenceservices", "knative-models", False),
        ("owner", "get", "secrets", "models", False),
        ("owner", "create", "clusterservingruntimes", "models", False),
        ("owner", "create", "pods/exec", "models", False),
        ("viewer", "list", "inferenceservices", "models", True),
        ("viewer", "delete", "inferenceservices", "models", False),
        # Predictors need nothing of Kubernetes.
        (account, "get", "pods", "models", False),
        (account, "get", "secrets", "models", False),
        (account, "list", "inferenceservices", "models", False),
    ]
    for user, verb, resource, namespace, allowed in expected:
        done = cluster.kubectl("auth", "can-i", verb, resource, f"--as={user}", "-n", namespace, check=False)
        assert (done.stdout.strip() == "yes") == allowed, (user, verb, resource, namespace, done.stderr)
