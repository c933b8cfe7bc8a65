"""A Kubernetes API with KServe in it: etcd, the API server and KServe's controller, all real, and no nodes.

What KServe makes of an InferenceService is read back; tests do what a node would do with it (pods.py).
"""

import base64
import json
import subprocess
from contextlib import ExitStack, contextmanager

import yaml

from servers import PATIENCE, ROOT, Process, eventually, free_port

BIN = ROOT / "target/tools/cluster"
MODULES = ROOT / "target/tools/cluster/modules"
# Of tests/cluster/go.mod, which helm is not told.
VERSION = "v1.34.4"
# Below MODULES.
CUSTOM_RESOURCES = [
    "argo-workflows/manifests/base/crds/full",
    "cilium/pkg/k8s/apis/cilium.io/client/crds/v2",
    "gateway-api/config/crd/standard",
    "keda/config/crd/bases",
    "prometheus-operator/example/prometheus-operator-crd",
    "serving/config/core/300-resources",
]
# Who may do everything, by the API server's list of tokens.
ADMIN = "admin-of-tests"


class Cluster:
    def __init__(self, folder):
        self.folder = folder
        self.url = f"https://127.0.0.1:{free_port()}"
        self.kubeconfig = folder / "kubeconfig"

    def kubectl(self, *args, text=None, check=True):
        command = [BIN / "kubectl", f"--kubeconfig={self.kubeconfig}", *args]
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=3 * PATIENCE)
        assert not check or done.returncode == 0, f"kubectl {' '.join(map(str, args))}: {done.stderr}"
        return done

    def apply(self, *documents, **options):
        """Applies manifests; unknown fields and wrong types are mistakes."""
        text = yaml.safe_dump_all(documents)
        return self.kubectl("apply", "--server-side", "--force-conflicts", "--validate=strict", "-f-", text=text, **options)

    def get(self, kind, name, namespace=None):
        """An object, or nothing."""
        where = ["-n", namespace] if namespace else []
        done = self.kubectl("get", kind, name, "-ojson", "--ignore-not-found", *where)
        return json.loads(done.stdout) if done.stdout else None

    def pod(self, deployment):
        """One of its pods, as the API server and KServe's webhook make it of the deployment's template."""
        template = deployment["spec"]["template"]
        metadata = {key: template["metadata"].get(key, {}) for key in ["labels", "annotations"]}
        metadata |= {"generateName": f"{deployment['metadata']['name']}-", "namespace": deployment["metadata"]["namespace"]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
        return json.loads(self.kubectl("create", "-f-", "-ojson", text=json.dumps(pod)).stdout)

    def knows_kinds(self):
        """Waits until all kinds that were defined can be used."""

        def conditions(definition):
            return [(each["type"], each["status"]) for each in definition.get("status", {}).get("conditions") or []]

        def all_can():
            definitions = json.loads(self.kubectl("get", "crd", "-ojson").stdout)["items"]
            return all(("Established", "True") in conditions(each) for each in definitions)

        eventually(all_can, "the kinds")

    def namespace(self, name):
        """Makes one with the account that pods have by default, which a controller would make. Pods must be as harmless as
        Kubernetes' strictest standard wants them."""
        metadata = {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        account = {"name": "default", "namespace": name}
        self.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})


def openssl(*args, folder):
    subprocess.run(["openssl", *map(str, args)], cwd=folder, check=True, capture_output=True, timeout=PATIENCE)


@contextmanager
def api_server(folder):
    """etcd and the API server, with RBAC."""
    cluster = Cluster(folder)
    openssl("genrsa", "-out", "accounts.key", 2048, folder=folder)
    (folder / "tokens.csv").write_text(f"{ADMIN},admin,admin,system:masters\n")
    etcd, peers = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tests", "cluster": {"server": cluster.url, "insecure-skip-tls-verify": True}}],
        "users": [{"name": "admin", "user": {"token": ADMIN}}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "admin"}}],
        "current-context": "tests",
    }
    cluster.kubeconfig.write_text(yaml.safe_dump(config))
    with ExitStack() as stack:
        store = Process(
            [
                BIN / "etcd",
                f"--data-dir={folder / 'etcd'}",
                f"--listen-client-urls={etcd}",
                f"--advertise-client-urls={etcd}",
                f"--listen-peer-urls={peers}",
                f"--initial-advertise-peer-urls={peers}",
                f"--initial-cluster=default={peers}",
                "--unsafe-no-fsync",
            ],
            {},
        )
        stack.callback(store.kill)
        server = Process(
            [
                BIN / "kube-apiserver",
                f"--etcd-servers={etcd}",
                "--bind-address=127.0.0.1",
                f"--secure-port={cluster.url.rsplit(':', 1)[1]}",
                f"--cert-dir={folder / 'certs'}",
                "--authorization-mode=RBAC",
                f"--token-auth-file={folder / 'tokens.csv'}",
                f"--service-account-key-file={folder / 'accounts.key'}",
                f"--service-account-signing-key-file={folder / 'accounts.key'}",
                "--service-account-issuer=https://kubernetes.default.svc",
                "--service-cluster-ip-range=10.45.0.0/16",
                "--allow-privileged",
                "--endpoint-reconciler-type=none",
            ],
            {},
        )
        stack.callback(server.kill)

        def is_ready():
            assert not store.ended() and not server.ended(), "the API server ended before it was ready"
            return cluster.kubectl("get", "--raw=/readyz", check=False).returncode == 0

        eventually(is_ready, "a ready API server", 3 * PATIENCE)
        yield cluster


def custom_resources(cluster):
    """The kinds of all that our manifests name, from where each project keeps them."""
    for folder in CUSTOM_RESOURCES:
        files = [f"-f={path}" for path in sorted((MODULES / folder).glob("*.yaml")) if "kind: CustomResourceDefinition" in path.read_text()]
        assert files, f"there are none in {folder}"
        cluster.kubectl("apply", "--server-side", *files)


def rendered(chart, *options, name="kserve", namespace="kserve"):
    """What helm makes of a chart."""
    command = [BIN / "helm", "template", name, chart, "--namespace", namespace, f"--kube-version={VERSION}", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def documents(path):
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def credentials(cluster, minio, namespace):
    """The secret of runtimes/inferenceservices, for this store."""
    secret, _ = documents(ROOT / "runtimes/inferenceservices/credentials.yaml")
    secret["metadata"]["namespace"] = namespace
    secret["metadata"]["annotations"]["serving.kserve.io/s3-endpoint"] = minio.endpoint.removeprefix("http://")
    secret["stringData"] = {"AWS_ACCESS_KEY_ID": minio.ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": minio.SECRET_KEY}
    cluster.apply(secret)


@contextmanager
def kserve(cluster, *options):
    """KServe as its own charts install it, but for the certificate, which cert-manager would make, and for where it runs."""
    charts = MODULES / "kserve/charts"
    cluster.namespace("kserve")
    for chart in ["kserve-crd", "kserve-localmodel-crd"]:
        cluster.apply(*rendered(charts / chart))
    cluster.knows_kinds()
    hooks = cluster.folder / "k8s-webhook-server/serving-certs"
    hooks.mkdir(parents=True)
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    key = ["-newkey", "rsa:2048", "-nodes", "-keyout", "tls.key"]
    openssl("req", "-x509", *key, "-out", "tls.crt", "-days", 2, *subject, folder=hooks)
    ca, port, probes = base64.b64encode((hooks / "tls.crt").read_bytes()).decode(), free_port(), free_port()
    elsewhere = {"Deployment", "Certificate", "Issuer"}
    manifests = [each for each in rendered(charts / "kserve-resources", *options) if each["kind"] not in elsewhere]
    webhooks = [each for each in manifests if each["kind"].endswith("WebhookConfiguration")]
    cluster.apply(*(each for each in manifests if each not in webhooks))
    command = [BIN / "kserve-controller", f"--webhook-port={port}", f"--health-probe-addr=127.0.0.1:{probes}", "--metrics-addr=0"]
    env = {"TMPDIR": cluster.folder, "KUBECONFIG": cluster.kubeconfig, "POD_NAMESPACE": "kserve", "HOME": cluster.folder}
    controller = Process([*command, f"--kubeconfig={cluster.kubeconfig}"], env)
    try:
        for configuration in webhooks:
            for webhook in configuration["webhooks"]:
                path = webhook["clientConfig"]["service"]["path"]
                webhook["clientConfig"] = {"url": f"https://127.0.0.1:{port}{path}", "caBundle": ca}
        eventually(lambda: "Starting the Cmd" in controller.log() or controller.ended(), "KServe's controller")
        assert not controller.ended(), controller.log()
        cluster.apply(*webhooks)
        yield controller
    finally:
        controller.kill()
