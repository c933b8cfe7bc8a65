"""Models pulled from a real S3 server, MinIO: what can be read, and what is said when it cannot."""

import json
import random
import re

import pytest

import servers
from models import MODELS
from servers import failure

IRIS = (MODELS / "iris/model.onnx").read_bytes()
FLOWER = {"instances": [[5.1, 3.5, 1.4, 0.2]]}


@pytest.fixture
def pull(minio, tmp_path):
    """Gives a server of the model at a URI, its cache in `tmp_path`."""

    def start(uri, env=None):
        args = ["--model_name=iris", f"--storage_uri={uri}", f"--cache_dir={tmp_path}"]
        return servers.stoker(*args, env=minio.env if env is None else env)

    return start


def assert_serves_iris(server):
    answer = server.post("/v1/models/iris:predict", FLOWER)
    assert (answer.status, answer.json()["predictions"][0]["label"]) == (200, 0)


def cached_files(cache):
    """What was pulled, by path below the model's directory."""
    (model,) = cache.glob("*/files")
    return {str(path.relative_to(model)): path.read_bytes() for path in model.rglob("*") if path.is_file()}


ODD = "odd name+plus/100%25 naïve ☕"
BIG = random.Random(40).randbytes(40 << 20)

# Objects, the path after the bucket, and the files that the model then consists of.
LAYOUTS = {
    "a folder": ({"models/iris/model.onnx": IRIS}, "models/iris", {"model.onnx": IRIS}),
    "a slash at the end": ({"models/iris/model.onnx": IRIS}, "models/iris/", {"model.onnx": IRIS}),
    "the whole bucket": ({"model.onnx": IRIS}, "", {"model.onnx": IRIS}),
    "a neighbour": (
        {"model/a.onnx": IRIS, "model2/b.onnx": b"other", "model.onnx": b"other"},
        "model",
        {"a.onnx": IRIS},
    ),
    "a Triton repository": (
        {"repo/iris/1/model.onnx": IRIS, "repo/iris/config.pbtxt": b"#"},
        "repo",
        {"iris/1/model.onnx": IRIS, "iris/config.pbtxt": b"#"},
    ),
    "one object": (
        {"dir/iris.onnx": IRIS, "dir/other.onnx": b"other"},
        "dir/iris.onnx",
        {"iris.onnx": IRIS},
    ),
    "odd names": (
        {f"{ODD}/ü +%41.onnx": IRIS, f"{ODD}/a&b=c?d#e": b"x"},
        ODD,
        {"ü +%41.onnx": IRIS, "a&b=c?d#e": b"x"},
    ),
    "empty objects": (
        {"m/": b"", "m/dir/": b"", "m/model.onnx": IRIS, "m/_SUCCESS": b""},
        "m",
        {"model.onnx": IRIS, "_SUCCESS": b""},
    ),
    "an object of many parts": (
        {"m/model.onnx": IRIS, "m/weights.bin": BIG},
        "m",
        {"model.onnx": IRIS, "weights.bin": BIG},
    ),
}


@pytest.mark.parametrize(("objects", "path", "files"), LAYOUTS.values(), ids=LAYOUTS)
def test_layouts(bucket, pull, tmp_path, objects, path, files):
    with pull(f"s3://{bucket(objects)}/{path}") as server:
        assert_serves_iris(server)
        assert cached_files(tmp_path) == files


def test_many_objects_take_many_listings(bucket, pull, tmp_path):
    """S3 lists at most 1000 objects at once."""
    objects = {f"m/{index:04}.txt": b"x" for index in range(1001)}
    with pull(f"s3://{bucket({**objects, 'm/model.onnx': IRIS})}/m") as server:
        assert_serves_iris(server)
        assert len(cached_files(tmp_path)) == 1002


def test_what_has_not_changed_is_not_pulled_again(bucket, pull, minio):
    uri = f"s3://{(name := bucket({'m/model.onnx': IRIS}))}/m"

    def load():
        """Whether it was cached, and how many bytes came."""
        with pull(uri) as server:
            assert_serves_iris(server)
            cached = server.event("model fetched")["cached"]
            phases = server.event("model ready")["phases"]
            assert '"list"' in phases and ('"first_byte"' in phases) != cached
            (came,) = re.findall(r'stoker_source_bytes_total{scheme="s3"} (\d+)', server.get("/metrics").body.decode())
            return cached, int(came)

    assert [load(), load()] == [(False, len(IRIS)), (True, 0)]
    # The same bytes with another object beside them are another model, of which only that object is new.
    minio.client().put_object(Bucket=name, Key="m/note.txt", Body=b"changed")
    assert [load(), load()] == [(False, len("changed")), (True, 0)]


def test_kserves_older_variables(minio, bucket, pull):
    """KServe sets S3_ENDPOINT without a scheme, and S3_USE_HTTPS beside it."""
    env = minio.env | {"S3_ENDPOINT": f"127.0.0.1:{minio.port}", "S3_USE_HTTPS": "0"}
    del env["AWS_ENDPOINT_URL"]
    with pull(f"s3://{bucket({'m/model.onnx': IRIS})}/m", env) as server:
        assert_serves_iris(server)


def test_a_public_bucket_needs_no_keys(minio, bucket, pull):
    name = bucket({"m/model.onnx": IRIS})
    env = {"AWS_ENDPOINT_URL": minio.endpoint, "awsAnonymousCredential": "true", "S3_MAX_ATTEMPTS": 1}
    assert "access is denied" in reason(env, f"s3://{name}/m")
    everybody = {"Effect": "Allow", "Principal": "*", "Action": ["s3:ListBucket", "s3:GetObject"]}
    everything = {"Resource": [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"]}
    policy = {"Version": "2012-10-17", "Statement": [everybody | everything]}
    minio.client().put_bucket_policy(Bucket=name, Policy=json.dumps(policy))
    with pull(f"s3://{name}/m", env) as server:
        assert_serves_iris(server)


# What can be wrong: changes to a working environment, the path after the bucket, and what the message must say. None
# may say what another says: whoever reads it must know which of them it is.
CAUSES = {
    "wrong secret": ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "m", "the secret access key is wrong (AWS_SECRET_ACCESS_KEY)"),
    "unknown key": ({"AWS_ACCESS_KEY_ID": "nobody"}, "m", "the access key is unknown (AWS_ACCESS_KEY_ID)"),
    "wrong token": ({"AWS_SESSION_TOKEN": "wrong"}, "m", "(AWS_SESSION_TOKEN)"),
    "no credentials": ({"AWS_ACCESS_KEY_ID": ""}, "m", "credentials are missing"),
    "empty prefix": ({}, "nothing/here", "there is no object below it"),
    "no server": (
        {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"},
        "m",
        "the endpoint cannot be reached",
    ),
    "no such host": (
        {"AWS_ENDPOINT_URL": "http://minio.invalid:9000"},
        "m",
        "the endpoint's host name cannot be resolved",
    ),
    "https to an http port": ({"S3_USE_HTTPS": "1"}, "m", "does the server speak https?"),
}


@pytest.mark.parametrize(("changes", "path", "message"), CAUSES.values(), ids=CAUSES)
def test_each_cause_of_failure_has_its_message(minio, bucket, changes, path, message):
    env = minio.env | changes
    if "S3_USE_HTTPS" in changes:
        env["AWS_ENDPOINT_URL"] = minio.endpoint.replace("http:", "https:")
    said = reason(env, f"s3://{bucket({'m/model.onnx': IRIS})}/{path}")
    assert [cause for _, _, cause in CAUSES.values() if cause in said] == [message], said
    assert minio.SECRET_KEY not in said


def test_a_missing_bucket_is_named(minio):
    assert 'bucket "no-such-bucket" does not exist' in reason(minio.env, "s3://no-such-bucket/m")


def test_a_server_that_says_nothing_is_not_called_unreachable(silent_s3):
    said = reason(silent_s3 | {"S3_READ_TIMEOUT": 1, "S3_MAX_ATTEMPTS": 1}, "s3://bucket/m")
    assert "no answer in time (S3_READ_TIMEOUT)" in said


def test_an_endpoint_that_is_not_s3_is_told(minio, serving):
    """As MinIO's console would be, on the port beside the right one; here it is another predictor."""
    said = reason(minio.env | {"AWS_ENDPOINT_URL": serving("iris").url}, "s3://bucket/m")
    assert "is not S3's: does the endpoint lead to the S3 API" in said


def test_a_file_where_the_cache_should_be_is_told(minio, bucket, tmp_path):
    (tmp_path / "file").touch()
    uri = f"s3://{bucket({'m/model.onnx': IRIS})}/m"
    said = failure("--model_name=m", f"--storage_uri={uri}", f"--cache_dir={tmp_path / 'file'}", env=minio.env)
    assert said.startswith(f"cache directory {tmp_path / 'file'}:")


def reason(env, uri):
    return failure("--model_name=m", f"--storage_uri={uri}", env=env)


def test_https_with_a_ca_of_ones_own(https, certificates, pull):
    with pull("s3://models/m", https.env | {"AWS_CA_BUNDLE": certificates / "ca.pem"}) as server:
        assert_serves_iris(server)


def test_https_unverified_in_a_lab(https, pull):
    with pull("s3://models/m", https.env | {"S3_VERIFY_SSL": "0"}) as server:
        assert_serves_iris(server)


def test_https_with_an_unknown_ca_says_what_to_do(https):
    said = reason(https.env, "s3://models/m")
    assert "the server's certificate is not trusted" in said
    assert "AWS_CA_BUNDLE" in said


def test_a_ca_bundle_that_is_none_is_told(https, tmp_path):
    bundle = tmp_path / "ca.pem"
    assert f"AWS_CA_BUNDLE {bundle}" in reason(https.env | {"AWS_CA_BUNDLE": bundle}, "s3://models/m")
    bundle.write_text("no certificate")
    assert f"AWS_CA_BUNDLE {bundle}" in reason(https.env | {"AWS_CA_BUNDLE": bundle}, "s3://models/m")
