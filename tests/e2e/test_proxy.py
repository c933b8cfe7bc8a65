"""Stores that only a proxy leads to."""

import pytest

import servers
from forward import proxy
from hub import hub
from test_initializer import MODELS, both
from test_pull import files, pull
from test_s3 import BIG, IRIS

OBJECTS = {"m/model.onnx": IRIS, "m/weights.bin": BIG}


@pytest.mark.parametrize("user", [None, "ada:l%ve"])
def test_a_store_behind_it(minio, bucket, tmp_path, user):
    with proxy({"minio.example": minio.port}, user) as between:
        login = f"{user.replace('%', '%25')}@" if user else ""
        env = minio.env | {"AWS_ENDPOINT_URL": "http://minio.example", "HTTP_PROXY": f"http://{login}{between.address}"}
        theirs, ours = both(tmp_path, env, f"s3://{bucket(OBJECTS)}/m", MODELS)
        assert theirs == ours and len(ours) == 3
        assert {method for method, _ in between.asked} >= {"GET"}


def test_a_store_with_tls(https, tmp_path):
    with proxy({"minio.example:443": https.port}) as between:
        env = https.env | {"AWS_ENDPOINT_URL": "https://minio.example", "S3_VERIFY_SSL": "0"}
        env["https_proxy"] = between.address
        assert pull(env, "s3://models/m", tmp_path).returncode == 0
        assert files(tmp_path) == {"model.onnx": IRIS}
        assert between.asked[0] == ("CONNECT", "minio.example:443")


def test_a_hub_behind_it(tmp_path):
    with hub({"owner/iris": {"main": {"model.onnx": IRIS, "weights.bin": BIG}}}) as server:
        port = int(server.url.rsplit(":", 1)[1])
        with proxy({"hub.example:8080": port, f"127.0.0.1:{port}": port}) as between:
            env = {"HF_ENDPOINT": "http://hub.example:8080", "all_proxy": f"http://{between.address}"}
            done = pull(env, "hf://owner/iris", tmp_path)
        assert done.returncode == 0, done.stderr
        assert files(tmp_path) == {"model.onnx": IRIS, "weights.bin": BIG}


def test_what_needs_none(minio, bucket, tmp_path):
    with proxy({}) as between:
        for number, around in enumerate([{}, {"no_proxy": "*"}]):
            env = minio.env | {"http_proxy": between.address} | around
            assert pull(env, f"s3://{bucket({'m/model.onnx': IRIS})}/m", tmp_path / str(number)).returncode == 0
        assert between.asked == []


def test_what_goes_wrong_is_said(minio, tmp_path):
    def reason(**env):
        args = ["--model_name=m", "--storage_uri=s3://models/m", f"--cache_dir={tmp_path}"]
        return servers.failure(*args, env=minio.env | {"AWS_ENDPOINT_URL": "http://minio.example"} | env)

    with proxy({"minio.example": minio.port}, "ada:love") as between:
        said = reason(http_proxy=between.address)
        assert f"the proxy {between.address} (http_proxy) answers with status 407" in said and "user:password@" in said
        said = reason(http_proxy=f"http://ada:love@{between.address}", AWS_SECRET_ACCESS_KEY="wrong")
        assert f"the secret access key is wrong (AWS_SECRET_ACCESS_KEY) (through the proxy {between.address} (http_proxy))" in said
        said = reason(http_proxy=f"http://ada:love@{between.address}", AWS_ENDPOINT_URL="https://minio.example")
        assert "cannot be resolved" in said  # https has a proxy of its own
        said = reason(ALL_PROXY=f"http://ada:love@{between.address}", AWS_ENDPOINT_URL="https://other.example")
        assert "(ALL_PROXY) answers with status 502: it finds no way there" in said and "love" not in said
    said = reason(http_proxy="http://127.0.0.1:1")
    assert "the proxy 127.0.0.1:1 (http_proxy): the server cannot be reached" in said
    assert "the proxy of http_proxy is an address of kind socks5://, expected http://" in reason(http_proxy="socks5://127.0.0.1:1")
