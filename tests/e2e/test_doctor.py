"""`stoker doctor` against real servers with one thing wrong each: it names the layer, and all before it are well."""

import json
import socket
import subprocess

import pytest

import servers
from servers import free_port
from test_s3 import IRIS

CACHE = "--cache_dir=none"


def doctor(env, *args):
    """The findings, and what is said at the end."""
    command = [servers.STOKER, "doctor", "--json", CACHE, "--host=127.0.0.1", f"--http_port={free_port()}", *map(str, args)]
    env = {name: str(value) for name, value in env.items()}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=3 * servers.PATIENCE)
    findings = json.loads(done.stdout)
    assert (done.returncode == 0) == all(finding["state"] != "failed" for finding in findings), done.stderr
    return findings, done.stderr


def failed(findings):
    return [(finding["layer"], finding["of"].split(" ")[0]) for finding in findings if finding["state"] == "failed"]


def states(findings, of):
    """Of one server's layers."""
    return [(finding["layer"], finding["state"]) for finding in findings if finding["of"].startswith(of)]


@pytest.fixture
def model(bucket):
    return f"s3://{bucket({'m/model.onnx': IRIS})}/m"


def test_all_is_well(mlflow_env, model):
    findings, _ = doctor(mlflow_env, f"--storage_uri={model}")
    assert not failed(findings)
    assert states(findings, "S3") == [("dns", "ok"), ("connect", "ok"), ("http", "ok"), ("credentials", "ok")]
    assert states(findings, "MLflow") == [("dns", "ok"), ("connect", "ok"), ("http", "ok")]
    [found] = [finding for finding in findings if finding["layer"] == "model"]
    assert "1 files" in found["seen"] and "can be read" in found["seen"]
    assert {"limits", "port", "runtime"} <= {finding["layer"] for finding in findings}
    secret = mlflow_env["AWS_SECRET_ACCESS_KEY"]
    assert secret not in json.dumps(findings)


def test_a_name_that_nobody_knows(minio, model):
    findings, said = doctor(minio.env | {"AWS_ENDPOINT_URL": "http://minio.nowhere.invalid:9000"}, f"--storage_uri={model}")
    assert failed(findings) == [("dns", "S3")] and "dns of S3" in said
    assert "NAME.NAMESPACE.svc" in findings[[f["layer"] for f in findings].index("dns")]["advice"]
    assert [finding["state"] for finding in findings if finding["layer"] == "model"] == ["skipped"]


def test_a_port_where_nobody_listens(minio, model):
    findings, _ = doctor(minio.env | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"}, f"--storage_uri={model}")
    assert failed(findings) == [("connect", "S3")]
    assert states(findings, "S3")[:2] == [("dns", "ok"), ("connect", "failed")]


def test_a_server_that_says_nothing(minio, model):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        env = minio.env | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        findings, _ = doctor(env, f"--storage_uri={model}")
    assert failed(findings) == [("http", "S3")]


def test_a_certificate_that_nobody_trusts(certificates):
    with servers.minio(certificates) as minio:
        findings, _ = doctor(minio.env)
        assert failed(findings) == [("tls", "S3")]
        assert states(findings, "S3")[:3] == [("dns", "ok"), ("connect", "ok"), ("tls", "failed")]
        findings, _ = doctor(minio.env | {"AWS_CA_BUNDLE": certificates / "ca.pem"})
        assert not failed(findings)
        findings, _ = doctor(minio.env | {"AWS_CA_BUNDLE": certificates / "none.pem"})
        assert failed(findings) == [("tls", "S3")]


def test_a_scheme_that_is_wrong(minio):
    findings, _ = doctor(minio.env | {"AWS_ENDPOINT_URL": minio.endpoint.replace("http:", "https:")})
    assert failed(findings)[0][0] in ("tls", "http")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "AWS_ACCESS_KEY_ID"),
    ],
)
def test_credentials_that_the_store_does_not_know(minio, model, wrong, says):
    findings, said = doctor(minio.env | wrong, f"--storage_uri={model}")
    assert failed(findings) == [("credentials", model)] and says in said


def test_no_credentials(minio):
    findings, _ = doctor({"AWS_ENDPOINT_URL": minio.endpoint})
    assert failed(findings) == [("credentials", "S3")]


def test_a_bucket_and_a_prefix_that_are_not_there(minio, model):
    places = [("bucket", "s3://no-such-bucket/m", "no-such-bucket"), ("model", model + "odel", "there is no object below it")]
    for layer, uri, says in places:
        findings, said = doctor(minio.env, f"--storage_uri={uri}")
        assert failed(findings) == [(layer, uri)] and says in said


def test_what_the_user_may_not_read(minio, model):
    """Nobody may, without keys."""
    findings, _ = doctor({"AWS_ENDPOINT_URL": minio.endpoint, "awsAnonymousCredential": "true"}, f"--storage_uri={model}")
    assert failed(findings) == [("permission", model)]


def test_mlflow(mlflow_env, tracking):
    findings, _ = doctor(mlflow_env, "--storage_uri=models:/bucket@champion")
    assert not failed(findings)
    findings, said = doctor(mlflow_env, "--storage_uri=models:/bucket@nobody")
    assert [layer for layer, _ in failed(findings)] == ["model"] and "nobody" in said
    findings, _ = doctor(mlflow_env | {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{free_port()}"})
    assert failed(findings) == [("connect", "MLflow")]


def test_otlp():
    with socket.create_server(("127.0.0.1", 0)) as collector:
        address = f"http://127.0.0.1:{collector.getsockname()[1]}"
        findings, _ = doctor({"OTEL_EXPORTER_OTLP_ENDPOINT": address})
        assert states(findings, "OTLP") == [("dns", "ok"), ("connect", "ok")]
    findings, _ = doctor({"OTEL_EXPORTER_OTLP_ENDPOINT": address})
    assert failed(findings) == [("connect", "OTLP")]


def test_this_machine(minio, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        findings, _ = doctor({}, f"--http_port={taken.getsockname()[1]}", "--device=gpu", f"--cache_dir={tmp_path / 'cache'}")
    assert [finding["state"] for finding in findings if finding["layer"] == "port"] == ["warning"]
    assert "cache" in [finding["layer"] for finding in findings if finding["state"] == "ok"]
    if not any(finding["layer"] == "device" for finding in findings):
        assert ("driver", "GPU") in failed(findings)
    (tmp_path / "file").write_text("")
    findings, _ = doctor({}, f"--cache_dir={tmp_path / 'file'}")
    assert ("cache", str(tmp_path / "file")) in failed(findings)
    findings, _ = doctor({}, "--onnxruntime_library=/nowhere.so")
    assert ("runtime", "warning") in [(finding["layer"], finding["state"]) for finding in findings]
