"""charts/stoker without a cluster: what helm makes of it, what it refuses, and what its alerts and dashboards ask for."""

import json
import os
import re
import subprocess

import pytest
import yaml

from cluster import BIN, VERSION, rendered
from servers import PATIENCE, ROOT

CHART = ROOT / "charts/stoker"
PROMTOOL = ROOT / "target/tools/prometheus/usr/bin/promtool"
# For clusters that are not managed by helm: what it makes of one template, kept.
GOLDEN = {
    "clusterservingruntimes.yaml": ("servingruntimes", []),
    "clusterservingruntimes-knative.yaml": ("servingruntimes", ["--set=deploymentMode=Knative"]),
    "servingruntimes.yaml": ("servingruntimes", ["--set=teams={my-team}"]),
    "clusterstoragecontainers.yaml": ("storagecontainers", []),
}


def helm(*args):
    return subprocess.run([BIN / "helm", *args], capture_output=True, text=True, timeout=PATIENCE)


def template(*options):
    return helm("template", "stoker", CHART, "--namespace=stoker", f"--kube-version={VERSION}", *options)


def documents(*options):
    return rendered(CHART, *options, name="stoker", namespace="stoker")


def test_lint():
    done = helm("lint", "--strict", CHART)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", GOLDEN)
def test_manifests_are_what_the_chart_makes(name):
    """With UPDATE=1 they are written."""
    source, options = GOLDEN[name]
    made = template(f"--show-only=templates/{source}.yaml", *options)
    assert made.returncode == 0, made.stderr
    text = re.sub("^# Source: .*\n", "", made.stdout, flags=re.MULTILINE).removeprefix("---\n")
    text = f"# Made from charts/stoker by UPDATE=1 tests/e2e/run -k charts: change it there.\n{text}"
    path = ROOT / "runtimes" / name
    if os.environ.get("UPDATE"):
        path.write_text(text)
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("deploymentMode=Serverless", "at '/deploymentMode': value must be one of 'Standard', 'Knative'"),
        ("runtimes.cpu.autoSelect=perhaps", "at '/runtimes/cpu/autoSelect': got string, want boolean"),
        ("runtimes.gpu.enabled=true", "at '/runtimes': additional properties 'gpu' not allowed"),
        ("runtimes.cpu.args={slo_milliseconds=50}", "at '/runtimes/cpu/args/0'"),
        ("networkPolicy.to.minio.port=0", "at '/networkPolicy/to/minio/port': minimum: got 0, want 1"),
        ("networkPolicy.kind=Calico", "at '/networkPolicy/kind': value must be one of"),
        ("image.digest=latest", "at '/image/digest': 'latest' does not match pattern"),
        ("teams={Fraud Team}", "at '/teams/0'"),
        ("cache.sizeLimit=lots", "at '/cache/sizeLimit'"),
        ("mlflow.trackingUri=mlflow:5000", "at '/mlflow/trackingUri'"),
    ],
)
def test_wrong_values_are_named(setting, message):
    done = template(f"--set={setting}")
    assert done.returncode != 0 and message in done.stderr, done.stderr


def test_the_formats_are_those_that_are_served():
    """As the README's table says, which the server itself makes."""
    table = (ROOT / "README.md").read_text().split("<!-- supported -->")[1].split("<!-- /supported -->")[0]
    formats = {line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")} - {"modelFormat"}
    runtimes = [each for each in documents() if each["kind"] == "ClusterServingRuntime"]
    assert [each["metadata"]["name"] for each in runtimes] == ["stoker-cpu", "stoker-cuda", "stoker-mig"]
    for runtime in runtimes:
        assert {each["name"] for each in runtime["spec"]["supportedModelFormats"]} == formats
        assert all(each["priority"] == 3 for each in runtime["spec"]["supportedModelFormats"])


def test_one_port_with_knative():
    for mode, ports in [("Standard", [8080, 9000]), ("Knative", [8080])]:
        for each in documents(f"--set=deploymentMode={mode}"):
            if each["kind"] == "ClusterServingRuntime":
                [container] = each["spec"]["containers"]
                assert [port["containerPort"] for port in container["ports"]] == ports
                assert ("--grpc_port=9000" in container["args"]) == (mode == "Standard")


def peers(rules, side, of):
    """Of a policy: who, by which namespace, at which ports."""
    return {(of(peer), str(port["port"])) for rule in rules for peer in rule[side] for port in ports_of(rule)}


def ports_of(rule):
    return rule["ports"] if "ports" in rule else [port for ports in rule["toPorts"] for port in ports["ports"]]


@pytest.mark.parametrize("kind", ["NetworkPolicy", "CiliumNetworkPolicy"])
def test_who_may_reach_whom(kind):
    made = documents(f"--set=networkPolicy.kind={kind},networkPolicy.namespaces={{fraud,pricing}}")
    policies = [each for each in made if each["kind"].endswith("NetworkPolicy")]
    assert [(each["kind"], each["metadata"]["namespace"]) for each in policies] == [(kind, "fraud"), (kind, "pricing")]
    for policy in policies:
        spec = policy["spec"]
        if kind == "NetworkPolicy":
            assert spec["policyTypes"] == ["Ingress", "Egress"]
            of = lambda peer: peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
            ingress, egress = peers(spec["ingress"], "from", of), peers(spec["egress"], "to", of)
        else:
            of = lambda peer: peer["matchLabels"]["k8s:io.kubernetes.pod.namespace"]
            ingress, egress = peers(spec["ingress"], "fromEndpoints", of), peers(spec["egress"], "toEndpoints", of)
        assert ingress == {("istio-system", "8080"), ("istio-system", "9000"), ("monitoring", "8080")}
        assert egress == {("kube-system", "53"), ("minio", "9000"), ("mlflow", "5000"), ("observability", "4317")}
        selector = spec.get("podSelector") or spec.get("endpointSelector")
        assert selector == {"matchExpressions": [{"key": "stoker.dev/runtime", "operator": "Exists"}]}


def promtool(*args, folder):
    done = subprocess.run([PROMTOOL, *args], cwd=folder, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts(tmp_path):
    """As the chart installs them: each fires when it should, says of whom, and is silent otherwise."""
    [rule] = [each for each in documents() if each["kind"] == "PrometheusRule"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rule["spec"]))
    promtool("check", "rules", "rules.yaml", folder=tmp_path)
    cases = yaml.safe_load((ROOT / "tests/e2e/alerts.yaml").read_text())
    (tmp_path / "cases.yaml").write_text(yaml.safe_dump(cases))
    promtool("test", "rules", "cases.yaml", folder=tmp_path)
    fires = {alert["alertname"] for test in cases["tests"] for alert in test["alert_rule_test"] if alert["exp_alerts"]}
    assert fires == {alert["alert"] for group in rule["spec"]["groups"] for alert in group["rules"]}


def test_alerts_and_dashboards_ask_for_metrics_that_there_are(tmp_path):
    dashboard = json.loads((CHART / "dashboards/stoker.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    asked += [variable["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    asked += [rule["expr"] for rule in yaml.safe_load((CHART / "rules/stoker.yaml").read_text())["groups"][0]["rules"]]
    # As they are registered: many are only told once there is something to tell.
    sources = " ".join(path.read_text() for path in (ROOT / "src/telemetry").glob("*.rs"))
    registered = set(re.findall(r'"((?:stoker|process)_\w+)"', sources))
    for name in set(re.findall(r"\b(?:stoker|process)_\w+", " ".join(asked))):
        assert {name, re.sub("_(total|bucket|sum|count|info)$", "", name)} & registered, name
    # Prometheus can read each of them.
    rules = [{"record": "x", "expr": re.sub(r"\$__rate_interval", "5m", expr)} for expr in asked if "label_values" not in expr]
    (tmp_path / "asked.yaml").write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": rules}]}))
    promtool("check", "rules", "--lint=none", "asked.yaml", folder=tmp_path)
