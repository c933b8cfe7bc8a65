"""charts/mlops-stack's pipelines, each step a process here, against a real MinIO, MLflow, Git and Prometheus: from data to a model
that KServe's own Deployment serves, to a canary that is taken back."""

import csv
import json
import os
import re
import signal
import subprocess
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
import yaml

import servers
from cluster import credentials, rendered
from pods import Node
from servers import ROOT, Process, eventually, free_port
from tracking import PYTHON, mlflow, s3_env

CHART = ROOT / "charts/mlops-stack"
PROMETHEUS = ROOT / "target/tools/prometheus/usr/bin/prometheus"
ROWS = [[5.1, 3.5, 1.4, 0.2], [6.0, 2.9, 4.5, 1.5], [6.9, 3.1, 5.4, 2.1]]


class Workflows:
    """Runs WorkflowTemplates as Argo does: their steps in order, with their arguments and what steps before have left."""

    def __init__(self, templates, folder, secrets, path):
        self.templates = {each["metadata"]["name"]: each["spec"] for each in templates}
        self.manifests = templates
        self.folder, self.secrets, self.path = folder, secrets, path

    def run(self, name, **parameters):
        """What each step left, by its name; ends with the first that fails."""
        spec = self.templates[name]
        workflow = {each["name"]: each.get("value") for each in spec["arguments"]["parameters"]} | parameters
        left = {}
        self.template(name, spec["entrypoint"], {}, workflow, left)
        return left

    def template(self, owner, name, inputs, workflow, left):
        [template] = [each for each in self.templates[owner]["templates"] if each["name"] == name]
        scope = {"inputs": inputs, "workflow": workflow, "tasks": left}
        if "dag" not in template:
            left[name] = self.container(template, scope)
            return
        ended, failures = {}, {}
        for task in template["dag"]["tasks"]:
            # "a", "a.Failed || a.Errored"
            needs = [need.strip().partition(".") for need in task.get("depends", "").split("||") if need]
            if needs and not any(ended[step] == (how or "Succeeded") for step, _, how in needs):
                ended[task["name"]] = "Skipped"
                continue
            values = {each["name"]: resolved(each["value"], scope) for each in task["arguments"]["parameters"]}
            other = task.get("templateRef", {"name": owner, "template": task.get("template")})
            try:
                self.template(other["name"], other["template"], values, workflow, left)
                ended[task["name"]] = "Succeeded"
            except Failed as failed:
                ended[task["name"]], failures[task["name"]] = "Failed", failed
                left[task["name"]] = {"failed": str(failed)}
        for step, failed in failures.items():
            if not any(f"{step}.Failed" in task.get("depends", "") for task in template["dag"]["tasks"]):
                raise failed

    def container(self, template, scope):
        container = template["container"]
        tmp = self.folder / f"{len(list(self.folder.iterdir()))}-{template['name']}"
        tmp.mkdir()
        [program, script] = container["command"]
        assert program == "python"
        args = [resolved(arg.replace("/tmp/", f"{tmp}/"), scope) for arg in container["args"]]
        env = {each["name"]: self.value(each, scope) for each in container["env"]} | {"HOME": str(tmp)}
        env |= {"PATH": self.path, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        step = CHART / "pipelines/steps" / Path(script).name
        done = subprocess.run([PYTHON, step, *args], env=env, cwd=tmp, capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise Failed(template["name"], done.returncode, done.stderr)
        return json.loads((tmp / "out.json").read_text())

    def value(self, variable, scope):
        if "valueFrom" in variable:
            return self.secrets[variable["valueFrom"]["secretKeyRef"]["key"]]
        return resolved(variable["value"], scope)


class Failed(Exception):
    def __init__(self, step, status, said):
        super().__init__(f"{step} ended with {status}: {said}")
        self.step, self.status = step, status


def resolved(text, scope):
    """With Argo's placeholders replaced."""

    def field(match):
        return str(scope["tasks"][match[1]][match[2]])

    text = re.sub(r"\{\{=jsonpath\(tasks\.(\w+)\.outputs\.parameters\.out, '\$\.(\w+)'\)\}\}", field, text)
    text = re.sub(r"\{\{inputs\.parameters\.(\w+)\}\}", lambda match: scope["inputs"][match[1]], text)
    text = re.sub(r"\{\{workflow\.parameters\.(\w+)\}\}", lambda match: scope["workflow"][match[1]], text)
    assert "{{" not in text, text
    return text


def git(*args, folder="."):
    return subprocess.run(["git", "-C", str(folder), *map(str, args)], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def minio():
    with servers.minio() as server:
        yield server


@pytest.fixture(scope="module")
def workflows(minio, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipelines")
    rows = [["sepal length", "sepal width", "petal length", "petal width", "species"]]
    script = "import json, sklearn.datasets as d; x, y = d.load_iris(return_X_y=True); print(json.dumps([x.tolist(), y.tolist()]))"
    features, labels = json.loads(subprocess.run([PYTHON, "-c", script], check=True, capture_output=True).stdout)
    names = ["setosa", "versicolor", "virginica"]
    rows += [[*feature, names[label]] for feature, label in zip(features, labels, strict=True)]
    random = np.random.default_rng(0)
    frauds = [["amount", "hour", "distance", "tries", "fraud"]]
    for amount, hour, distance, tries in random.random((2000, 4)) * [1000, 24, 100, 5]:
        frauds.append([round(amount, 2), round(hour, 1), round(distance, 1), int(tries), "yes" if amount > 700 and tries > 2 else "no"])
    for name, table in [("iris", rows), ("fraud", frauds)]:
        with open(folder / f"{name}.csv", "w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(table)
    data = {f"{name}.csv": (folder / f"{name}.csv").read_bytes() for name in ["iris", "fraud"]}
    servers.fill(minio.client(), "training-datasets", data)
    servers.fill(minio.client(), "mlflow-artifacts", {})
    git("init", "--quiet", "--bare", "--initial-branch=main", folder / "models.git")
    git("clone", "--quiet", folder / "models.git", folder / "main")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--allow-empty", "-m", "begin", folder=folder / "main")
    git("push", "--quiet", "origin", "HEAD:main", folder=folder / "main")
    (folder / "bin").mkdir()
    (folder / "bin/stoker").symlink_to(servers.STOKER)
    secrets = {"AWS_ACCESS_KEY_ID": minio.ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": minio.SECRET_KEY}
    options = ["--no-serve-artifacts", "--default-artifact-root", "s3://mlflow-artifacts"]
    with mlflow(folder, s3_env(minio), options) as server:
        places = [f"pipelines.mlflowTrackingUri={server.url}", f"pipelines.s3Endpoint={minio.endpoint}"]
        places.append(f"pipelines.repository={folder / 'models.git'}")
        made = rendered(CHART, *(f"--set={place}" for place in places), name="mlops", namespace="platform")
        made = [each for each in made if each["kind"] == "WorkflowTemplate"]
        (folder / "steps").mkdir()
        own = Workflows(made, folder / "steps", secrets, f"{folder / 'bin'}:/usr/bin:/bin")
        own.git, own.tracking, own.minio = folder / "models.git", server, minio
        yield own


def proposed(workflows, branch, path):
    """What a branch proposes."""
    return yaml.safe_load(git("show", f"{branch}:{path}", folder=workflows.git))


def merge(workflows, branch):
    """What people do who agree."""
    git("branch", "--force", "main", branch, folder=workflows.git)


def test_from_data_to_git_and_the_same_again(workflows):
    done = workflows.run("iris")
    assert done["promote"]["branch"] == "promote/iris-1" and done["evaluate"]["score"] > 0.85
    found = proposed(workflows, "promote/iris-1", "models/iris.yaml")
    annotations = found["metadata"]["annotations"]
    assert annotations["stoker.dev/mlflow-run-id"] == done["train"]["run_id"]
    assert annotations["stoker.dev/storage-digest"].startswith("sha256:")
    assert found["spec"]["predictor"]["model"]["storageUri"].startswith("s3://mlflow-artifacts/")
    assert git("rev-parse", "main", folder=workflows.git) != done["promote"]["commit"], "people decide"
    again = workflows.run("iris")
    assert again == done, "the same data is not trained, registered or committed twice"


def test_templates_are_argos(kserve_cluster, workflows):
    """Without a field that Argo does not know."""
    kserve_cluster.namespace("argo")
    kserve_cluster.apply(*workflows.manifests)


def test_xgboost(workflows):
    done = workflows.run("fraud")
    assert done["evaluate"]["score"] > 0.8 and done["promote"]["branch"] == "promote/fraud-1"


def test_what_is_refused(workflows):
    """Data that are not as they should be, and models that are not good enough: with a status that is not tried again."""
    s3 = workflows.minio.client()
    whole = s3.get_object(Bucket="training-datasets", Key="iris.csv")["Body"].read().decode().splitlines()
    for name, lines in [
        ("short", whole[:50]),
        ("wrong", [*whole[:-1], "many,1,1,1,virginica"]),
        ("columns", [line.replace("petal width,", "") for line in whole]),
        ("classes", [line.replace("virginica", "rosa") for line in whole]),
    ]:
        s3.put_object(Bucket="training-datasets", Key=f"{name}.csv", Body="\n".join(lines).encode())
        with pytest.raises(Failed) as failed:
            workflows.run("iris", data=f"s3://training-datasets/{name}.csv")
        assert (failed.value.step, failed.value.status) == ("validate", 3), failed.value
    with pytest.raises(Failed) as failed:
        workflows.run("iris", options='{"n_estimators": 1, "max_depth": 1}')
    assert (failed.value.step, failed.value.status) == ("evaluate", 3), failed.value


@contextmanager
def prometheus(folder, servers_by_pod):
    """One that asks these every second, as the PodMonitor has it ask."""
    config = {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [{"job_name": "stoker", "static_configs": [{"targets": [address], "labels": {"pod": pod}} for pod, address in servers_by_pod.items()]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    command = [PROMETHEUS, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address={address}"]
    process = Process(command, {"NO_PROXY": "127.0.0.1"})
    try:
        eventually(lambda: "Server is ready" in process.log() or process.ended(), "Prometheus")
        assert not process.ended(), process.log()
        yield f"http://{address}"
    finally:
        process.kill()


@contextmanager
def asked(servers_by_version, model):
    """Four callers of each, who go on asking for as long as this lasts."""
    over = threading.Event()

    def ask(server):
        while not over.wait(0.002):
            assert server.request("POST", f"/v1/models/{model}:predict", json.dumps({"instances": ROWS})).status == 200

    threads = [threading.Thread(target=ask, args=[server]) for server in servers_by_version for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


@contextmanager
def stalling(pid):
    """A process that stands still most of the time, in bouts so short that many of them find it with a request in its hands:
    of those that wait at its door it knows nothing."""
    over = threading.Event()

    def stall():
        while not over.wait(0.02):
            os.kill(pid, signal.SIGSTOP)
            over.wait(0.2)
            os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=stall)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def synced(cluster, workflows):
    """What ArgoCD does: the cluster is as main says."""
    manifest = proposed(workflows, "main", "models/iris.yaml")
    cluster.apply(manifest)
    return manifest


def deployed(cluster, name, version):
    """KServe's deployment, once it is of that version."""

    def find():
        found = cluster.get("deployment", name, "models")
        return found if found and f"--model_version={version}" in found["spec"]["template"]["spec"]["containers"][0]["args"] else None

    return eventually(find, f"{name} of version {version}")


def test_what_is_merged_is_served_and_a_bad_canary_is_taken_back(kserve_cluster, workflows, tmp_path, tmp_path_factory):
    cluster, minio = kserve_cluster, workflows.minio
    node = Node(tmp_path_factory.mktemp("node"), cluster)
    credentials(cluster, minio, "models")
    before = workflows.run("iris")
    merge(workflows, "promote/iris-1")
    synced(cluster, workflows)
    first = deployed(cluster, "iris-predictor", 1)
    assert before["promote"]["commit"] == git("rev-parse", "main", folder=workflows.git)
    done = workflows.run("iris", options='{"n_estimators": 60}', traffic="10")
    assert done["promote"]["branch"] == "promote/iris-2"
    merge(workflows, "promote/iris-2")
    synced(cluster, workflows)
    canary = deployed(cluster, "iris-next-predictor", 2)
    assert deployed(cluster, "iris-predictor", 1)["spec"]["template"] == first["spec"]["template"], "the version before is left alone"
    with ExitStack() as stack:
        running = {}
        for deployment, version in [(first, "1"), (canary, "2")]:
            pod = stack.enter_context(node.pod(cluster.pod(deployment), reaches=[minio.port]))
            running[version] = stack.enter_context(pod.serving())
            answer = running[version].request("POST", "/v1/models/iris:predict", json.dumps({"instances": ROWS}))
            assert answer.json()["predictions"] == [0, 1, 2] and answer.headers["x-model-version"] == version
        addresses = {f"iris-{version}": stack.enter_context(server.exposed()) for version, server in running.items()}
        place = stack.enter_context(prometheus(tmp_path, addresses))
        # Answers take a millisecond, on a machine that does much else meanwhile.
        told = {"prometheus": place, "judge": '{"max_error_part": 0.01, "max_p99_ratio": 20, "min_requests": 50}'}
        for spec in workflows.templates["iris-canary"]["templates"][0]["dag"]["tasks"][0]["arguments"]["parameters"]:
            spec["value"] = told.get(spec["name"], spec["value"])
        with asked(running.values(), "iris"):
            well = workflows.run("iris-canary", stable="1", version="2", seconds="8")
            assert "take-back" not in well and well["promote"]["branch"] == "promote/iris-2"
            with stalling(running["2"].process.child.pid):
                left = workflows.run("iris-canary", stable="1", version="2", seconds="60")
    assert "promote" not in left and left["take-back"]["branch"] == "main"
    assert "its p99 is" in left["analyze"]["failed"]
    manifest = synced(cluster, workflows)
    assert "canary" not in manifest["spec"]
    eventually(lambda: cluster.get("deployment", "iris-next-predictor", "models") is None, "the canary's end")
    assert deployed(cluster, "iris-predictor", 1)
