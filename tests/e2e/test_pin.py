"""`stoker pin`: what a name means now, and that nothing else is served under its digest."""

import json
import subprocess

import pytest
import yaml

import servers
from hub import commit, hub
from servers import failure

from test_mlflow import predict
from test_pull import files, pull
from test_s3 import BIG, IRIS, assert_serves_iris

NOWHERE = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "S3_MAX_ATTEMPTS": 1, "MLFLOW_TRACKING_URI": "http://127.0.0.1:1"}
BY_COREUTILS = "cd $0 && find -L . -type f -printf '%P\\0' | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum"


def pin(env, uri, cache, *options):
    command = [servers.STOKER, "pin", str(uri), f"--cache_dir={cache}", *options]
    env = {name: str(value) for name, value in env.items()}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=servers.PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stdout if options else json.loads(done.stdout)


def by_coreutils(folder):
    summed = subprocess.run(["bash", "-c", BY_COREUTILS, folder], capture_output=True, text=True, check=True)
    return f"sha256:{summed.stdout.split()[0]}"


def serve(env, uri, digest, cache):
    args = ["--model_name=iris", f"--storage_uri={uri}", f"--storage_digest={digest}", f"--cache_dir={cache}"]
    return servers.stoker(*args, env=env)


def refusal(env, uri, digest, cache):
    args = ["--model_name=iris", f"--storage_uri={uri}", f"--storage_digest={digest}", f"--cache_dir={cache}"]
    return failure(*args, env=env)


def test_a_prefix_of_a_bucket(minio, bucket, tmp_path):
    name = bucket({})
    s3 = minio.client()
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    versions = {}
    for key, content in {"m/model.onnx": IRIS, "m/deep/a b\\ü": b"x", "m/empty": b"", "m2/other": b""}.items():
        versions[key] = s3.put_object(Bucket=name, Key=key, Body=content)["VersionId"]
    uri = f"s3://{name}/m"
    pinned = pin(minio.env, uri, tmp_path / "pins")
    assert (pinned["uri"], pinned["version"], pinned["storageUri"]) == (uri, uri, uri)
    objects = {each["key"]: each for each in pinned["objects"]}
    del versions["m2/other"]
    assert {key: each["versionId"] for key, each in objects.items()} == versions
    head = s3.head_object(Bucket=name, Key="m/model.onnx")
    assert (objects["m/model.onnx"]["etag"], objects["m/model.onnx"]["bytes"]) == (head["ETag"], len(IRIS))
    assert pull(minio.env, uri, tmp_path / "tree").returncode == 0
    assert pinned["digest"] == by_coreutils(tmp_path / "tree") == pin({}, tmp_path / "tree", tmp_path)["digest"]

    with serve(minio.env, uri, pinned["digest"], tmp_path / "cache") as server:
        assert_serves_iris(server)
        assert "verify" in server.event("model ready")["phases"]
    # What is pinned and here is served without asking anybody, under whatever name.
    with serve(NOWHERE, "models:/iris@champion", pinned["digest"], tmp_path / "cache") as server:
        assert_serves_iris(server)
        assert server.event("model fetched")["cached"]

    s3.put_object(Bucket=name, Key="m/empty", Body=b"not any more")
    for cache in ["cache", "empty cache"]:
        if cache == "empty cache":
            message = refusal(minio.env, uri, pinned["digest"], tmp_path / cache)
            assert uri in message and f"but {pinned['digest']} is pinned" in message
            assert not list((tmp_path / cache).glob("*/index.json"))
        else:
            with serve(minio.env, uri, pinned["digest"], tmp_path / cache) as server:
                assert_serves_iris(server)
    s3.delete_object(Bucket=name, Key="m/empty", VersionId=s3.head_object(Bucket=name, Key="m/empty")["VersionId"])
    with serve(minio.env, uri, pinned["digest"], tmp_path / "empty cache") as server:
        assert_serves_iris(server)


def test_what_is_in_the_cache_already_is_checked_too(minio, bucket, tmp_path):
    uri = f"s3://{bucket({'m/model.onnx': IRIS})}/m"
    args = ["--model_name=iris", f"--storage_uri={uri}", f"--cache_dir={tmp_path}"]
    with servers.stoker(*args, env=minio.env) as server:
        assert_serves_iris(server)
    wrong = "sha256:" + "0" * 64
    assert f"but {wrong} is pinned" in refusal(minio.env, uri, wrong, tmp_path)
    with serve(minio.env, uri, pin(minio.env, uri, tmp_path)["digest"], tmp_path) as server:
        assert_serves_iris(server)
        assert server.event("model fetched")["cached"]


def test_a_local_directory(tmp_path):
    (tmp_path / "model.onnx").write_bytes(IRIS)
    digest = pin({}, tmp_path, tmp_path)["digest"]
    args = ["--model_name=iris", f"--model_dir={tmp_path}", f"--storage_digest={digest}"]
    with servers.stoker(*args) as server:
        assert_serves_iris(server)
    (tmp_path / "more").write_bytes(b"")
    assert f"{digest} is pinned" in failure(*args)


def test_links_to_directories_are_what_they_lead_to(tmp_path):
    """Which is what is served."""
    for version in ["v1", "v2"]:
        (tmp_path / version).mkdir()
    (tmp_path / "v1/model.onnx").write_bytes(IRIS)
    (tmp_path / "v2/model.onnx").write_bytes(IRIS + b" ")
    models = tmp_path / "models"
    models.mkdir()
    (models / "1").symlink_to(tmp_path / "v1")
    digest = pin({}, models, tmp_path)["digest"]
    assert digest == by_coreutils(models)
    args = ["--model_name=iris", f"--model_dir={models}", f"--storage_digest={digest}"]
    with servers.stoker(*args) as server:
        assert_serves_iris(server)
    (models / "1").unlink()
    (models / "1").symlink_to(tmp_path / "v2")
    assert "is pinned" in failure(*args)


def test_an_alias(mlflow_env, tracking, tmp_path):
    pins, cache = tmp_path / "pins", tmp_path / "cache"
    moved = pin(mlflow_env, "models:/moved@champion", pins)
    assert (moved["version"], moved["storageUri"]) == ("models:/moved/2", "models:/moved/2")
    assert {each["path"] for each in moved["files"]} >= {"MLmodel", "model.skops"}
    assert pin(mlflow_env, "models:/moved/latest", pins) == moved | {"uri": "models:/moved/latest"}
    before = pin(mlflow_env, "models:/moved/1", pins)
    assert before["digest"] != moved["digest"]
    assert "is pinned" in refusal(mlflow_env, "models:/moved@champion", before["digest"], cache)
    # Artifacts in a bucket are served without MLflow.
    pinned, model = pin(mlflow_env, "models:/bucket@champion", pins), tracking.models["bucket"]
    assert (pinned["version"], pinned["storageUri"][:5]) == ("models:/bucket/1", "s3://")
    without_mlflow = {name: value for name, value in mlflow_env.items() if name != "MLFLOW_TRACKING_URI"}
    with serve(without_mlflow, pinned["storageUri"], pinned["digest"], cache) as server:
        assert predict(server, "iris", {"instances": model["rows"]}) == model["predictions"]


def test_annotations(mlflow_env, tracking, tmp_path):
    uri = "models:/bucket@champion"
    pinned = pin(mlflow_env, uri, tmp_path)
    assert yaml.safe_load(pin(mlflow_env, uri, tmp_path, "--format=annotations")) == {
        "metadata": {
            "annotations": {
                "stoker.dev/storage-digest": pinned["digest"],
                "stoker.dev/storage-pinned": uri,
                "stoker.dev/storage-version": "models:/bucket/1",
            }
        },
        "spec": {"predictor": {"model": {"storageUri": pinned["storageUri"]}}},
    }


def test_a_branch_of_a_hub(tmp_path):
    exact = f"hf://owner/iris@{commit('owner/iris', 'main')}/onnx"
    with hub({"owner/iris": {"main": {"README.md": b"", "onnx/model.onnx": IRIS}}}) as server:
        env = {"HF_ENDPOINT": server.url}
        pinned = pin(env, "hf://owner/iris/onnx", tmp_path)
        assert (pinned["version"], pinned["storageUri"]) == (exact, exact)
        assert pull(env, exact, tmp_path / "tree").returncode == 0
    assert pinned["digest"] == by_coreutils(tmp_path / "tree")


def test_an_archive_is_what_is_in_it(minio, bucket, tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/model.onnx").write_bytes(IRIS)
    (tmp_path / "tree/weights.bin").write_bytes(BIG)
    subprocess.run(["tar", "czf", tmp_path / "m.tar.gz", "-C", tmp_path / "tree", "."], check=True)
    uri = f"s3://{bucket({'m.tar.gz': (tmp_path / 'm.tar.gz').read_bytes()})}/m.tar.gz"
    pinned = pin(minio.env, uri, tmp_path / "cache")
    assert pinned["digest"] == by_coreutils(tmp_path / "tree")
    assert [each["key"] for each in pinned["objects"]] == ["m.tar.gz"]
    # What was pinned is known by its digest from then on, and nobody is asked for it.
    with serve({}, uri, pinned["digest"], tmp_path / "cache") as server:
        assert_serves_iris(server)


@pytest.mark.parametrize("local", [False, True])
def test_a_pull_keeps_to_its_digest(minio, bucket, tmp_path, local):
    (tmp_path / "here").mkdir()
    (tmp_path / "here/model.onnx").write_bytes(IRIS)
    uri = tmp_path / "here" if local else f"s3://{bucket({'m/model.onnx': IRIS})}/m"
    digest, wrong = by_coreutils(tmp_path / "here"), "sha256:" + "0" * 64
    done = pull(minio.env | {"STOKER_STORAGE_DIGEST": digest}, uri, tmp_path / "good")
    assert (done.returncode, files(tmp_path / "good")) == (0, {"model.onnx": IRIS}), done.stderr
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/old").write_bytes(b"old")
    done = pull(minio.env | {"STOKER_STORAGE_DIGEST": wrong}, uri, tmp_path / "bad")
    assert (done.returncode, files(tmp_path / "bad")) == (1, {"old": b"old"})
    assert f"{wrong} is pinned" in done.stderr.splitlines()[-1]
    two = pull(minio.env | {"STOKER_STORAGE_DIGEST": digest}, uri, tmp_path / "a", uri, tmp_path / "b")
    assert "1 digests for 2 sources" in two.stderr.splitlines()[-1]
    both = {"STOKER_STORAGE_DIGEST": f"{digest},{digest}"}
    assert pull(minio.env | both, uri, tmp_path / "a", uri, tmp_path / "b").returncode == 0


def test_what_is_wanted_is_what_is_pinned(minio, bucket, tmp_path):
    uri = f"s3://{bucket({'m/model.onnx': IRIS, 'm/model.bin': BIG, 'm/README.md': b'#'})}/m"
    env = minio.env | {"STORAGE_ALLOW_PATTERNS": "model.*", "STORAGE_IGNORE_PATTERNS": "*.bin"}
    pinned = pin(env, uri, tmp_path / "pins")
    assert [each["path"] for each in pinned["files"]] == ["model.onnx"]
    assert pull(env | {"STOKER_STORAGE_DIGEST": pinned["digest"]}, uri, tmp_path / "tree").returncode == 0
    assert by_coreutils(tmp_path / "tree") == pinned["digest"]
    with serve(env, uri, pinned["digest"], tmp_path / "cache") as server:
        assert_serves_iris(server)
    assert "is pinned" in refusal(minio.env, uri, pinned["digest"], tmp_path / "all")
