"""What several test files share."""

import os
import random
import socket
from contextlib import ExitStack
from functools import cache, partial

import pytest

import servers
from cluster import MODULES, api_server, custom_resources, kserve, openssl, rendered
from models import MODELS, THREADS
from servers import ROOT, Process
from tracking import BUCKET, log, mlflow, s3_env

# The developer's proxy has no way to the loopback interface, where everything here is. Some clients read only one.
os.environ |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


@pytest.fixture(scope="session")
def serving():
    """Gives the server of a fixture model, started when first asked for: for tests that only send requests."""
    with ExitStack() as stack:

        @cache
        def start(model):
            args = [f"--model_name={model}", f"--model_dir={MODELS / model}", f"--threads={THREADS}"]
            return stack.enter_context(servers.stoker(*args))

        yield start


@pytest.fixture(scope="session")
def minio():
    with servers.minio() as server:
        yield server


@pytest.fixture
def bucket(minio):
    """Gives a new bucket with these objects."""

    def make(objects):
        name = f"bucket-{random.getrandbits(64):016x}"
        servers.fill(minio.client(), name, objects)
        return name

    return make


@pytest.fixture(scope="session")
def tracking(minio, tmp_path_factory):
    """An MLflow server that hands out artifacts of its own bucket, where experiments may name other places."""
    folder = tmp_path_factory.mktemp("tracking")
    minio.client().create_bucket(Bucket=BUCKET)
    options = ["--serve-artifacts", "--artifacts-destination", f"s3://{BUCKET}/served"]
    with mlflow(folder, s3_env(minio), options) as server:
        server.models = log(server, s3_env(minio), "log_places.py", folder)
        yield server


@pytest.fixture
def mlflow_env(minio, tracking):
    """What a predictor's environment says of both."""
    return {"MLFLOW_TRACKING_URI": tracking.url, **minio.env}


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """A folder as MinIO wants it, with a certificate for 127.0.0.1, and the CA that nobody else knows."""
    folder = tmp_path_factory.mktemp("certs")

    make = partial(openssl, folder=folder)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    (folder / "extensions").write_text("subjectAltName=IP:127.0.0.1\n")
    make("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=stoker test CA", "-days", 2)
    make("req", *key, "-keyout", "private.key", "-out", "request", "-subj", "/CN=minio")
    signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "extensions", "-days", 2]
    make("x509", "-req", "-in", "request", "-out", "public.crt", *signing)
    return folder


@pytest.fixture(scope="session")
def https(certificates):
    """MinIO over HTTPS, with a model in s3://models/m."""
    iris = (MODELS / "iris/model.onnx").read_bytes()
    with servers.minio(certs=certificates) as server:
        servers.fill(server.client(verify=str(certificates / "ca.pem")), "models", {"m/model.onnx": iris})
        yield server


@pytest.fixture
def silent_s3():
    """The environment of an S3 server that takes connections and never says a word: a load that never ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        yield {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s"}


def pytest_runtest_setup():
    Process.started = [process for process in Process.started if not process.ended()]
    for process in Process.started:
        process.old_log = len(process.log())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Shows beside a failure what the servers logged during the test."""
    report = yield
    if report.failed:
        logs = [(process.name, process.log()[process.old_log :]) for process in Process.started]
        report.sections += [(f"log of {name}", log[-10_000:]) for name, log in logs if log]
    return report


@pytest.fixture(scope="session")
def kserve_cluster(tmp_path_factory):
    """KServe without Knative by default, as its own charts install it, and what charts/README.md and runtimes/README.md say."""
    with api_server(tmp_path_factory.mktemp("cluster")) as server:
        custom_resources(server)
        with kserve(server, "--set=kserve.controller.deploymentMode=Standard") as controller:
            server.controller = controller
            for namespace in ["stoker", "models", "knative-models", "knative-serving"]:
                server.namespace(namespace)
            server.kubectl("apply", "--server-side", f"-f={MODULES / 'serving/config/core/configmaps/autoscaler.yaml'}")
            server.apply(*rendered(MODULES / "kserve/charts/kserve-runtime-configs", "--set=kserve.servingruntime.enabled=true"))
            options = ["--set=serviceAccount.namespaces={models,knative-models},networkPolicy.namespaces={models}"]
            server.apply(*rendered(ROOT / "charts/stoker", *options, name="stoker", namespace="stoker"))
            server.kubectl("patch", "clusterstoragecontainer", "default", "--type=merge", "-p", '{"disabled": true}')
            # Where Knative is used instead, its pods have one port.
            knative = ["--set=deploymentMode=Knative,teams={knative-models}"]
            runtimes = rendered(ROOT / "charts/stoker", *knative, name="stoker", namespace="stoker")
            server.apply(*(each for each in runtimes if each["kind"] == "ServingRuntime"))
            yield server
