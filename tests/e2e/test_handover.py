"""What `stoker pull stoker+s3://...` leaves in a pod's volume, and the server that reads the objects by it."""

import json
import subprocess
import time
from pathlib import Path

import pytest
import yaml

import servers
from servers import ROOT, failure
from test_mlflow import predict
from test_pin import by_coreutils
from test_pull import files, pull
from test_s3 import BIG, IRIS, ODD, assert_serves_iris, cached_files

NAME = "stoker-handover.json"
CONTAINERS = list(yaml.safe_load_all((ROOT / "runtimes/clusterstoragecontainers.yaml").read_text()))


def serve(folder, cache, *flags):
    """As in a pod: without credentials, and without the init container's environment."""
    return servers.stoker("--model_name=iris", f"--model_dir={folder}", f"--cache_dir={cache}", *flags)


@pytest.fixture
def objects(bucket):
    return f"{bucket({f'{ODD}/model.onnx': IRIS, f'{ODD}/deep/weights.bin': BIG, f'{ODD}/empty': b''})}/{ODD}"


def test_the_server_reads_by_itself(minio, objects, tmp_path):
    models = tmp_path / "models"
    done = pull(minio.env, f"stoker+s3://{objects}", models)
    assert done.returncode == 0, done.stderr
    assert set(files(models)) == {NAME} and (models / NAME).stat().st_mode & 0o777 == 0o644
    assert minio.SECRET_KEY not in (models / NAME).read_text()
    with serve(models, tmp_path / "cache") as server:
        assert_serves_iris(server)
        assert cached_files(tmp_path / "cache") == {"model.onnx": IRIS, "deep/weights.bin": BIG, "empty": b""}
        assert "X-Amz-Signature" not in server.log()
    # The container starts again, and the store is away.
    handed = json.loads((models / NAME).read_text())
    (models / NAME).write_text(json.dumps(handed | {"base": "http://127.0.0.1:1"}))
    with serve(models, tmp_path / "cache") as server:
        assert_serves_iris(server)
        assert server.event("model fetched")["cached"]
    assert "cannot be reached" in failure("--model_name=m", f"--model_dir={models}", f"--cache_dir={tmp_path / 'none'}")


def test_objects_that_are_not_the_same_any_more(minio, bucket, tmp_path):
    name = bucket({"m/model.onnx": IRIS})
    assert pull(minio.env, f"stoker+s3://{name}/m", tmp_path / "models").returncode == 0
    minio.client().put_object(Bucket=name, Key="m/model.onnx", Body=IRIS + b" ")
    args = ["--model_name=m", f"--model_dir={tmp_path / 'models'}", f"--cache_dir={tmp_path / 'cache'}"]
    assert "was replaced" in failure(*args)


def test_a_signature_ends(minio, objects, tmp_path):
    env = minio.env | {"STOKER_HANDOVER_SECONDS": 1}
    assert pull(env, f"stoker+s3://{objects}", tmp_path / "models").returncode == 0
    time.sleep(2.5)
    args = ["--model_name=m", f"--model_dir={tmp_path / 'models'}", f"--cache_dir={tmp_path / 'cache'}"]
    assert "has expired: start the pod anew" in failure(*args)
    for wrong in ["0", "604801", "long"]:
        done = pull(minio.env | {"STOKER_HANDOVER_SECONDS": wrong}, f"stoker+s3://{objects}", tmp_path / "models")
        assert "STOKER_HANDOVER_SECONDS" in done.stderr.splitlines()[-1]


def test_flipped_bits_are_found(minio, bucket, tmp_path):
    """By the checksums that the init container has seen."""
    name = bucket({})
    minio.client().put_object(Bucket=name, Key="m/model.onnx", Body=IRIS)
    minio.client().put_object(Bucket=name, Key="m/big.bin", Body=BIG, ChecksumAlgorithm="CRC32")
    assert pull(minio.env, f"stoker+s3://{name}/m", tmp_path / "models").returncode == 0
    handed = json.loads((tmp_path / "models" / NAME).read_text())
    [big] = [file for file in handed["files"] if file["path"] == "big.bin"]
    algorithm, value = big["checksum"][0].split()
    assert algorithm == "crc32"
    big["checksum"][0] = f"{algorithm} {int(value, 16) ^ 1:08x}"
    (tmp_path / "models" / NAME).write_text(json.dumps(handed))
    args = ["--model_name=m", f"--model_dir={tmp_path / 'models'}", f"--cache_dir={tmp_path / 'cache'}"]
    assert "crc32" in failure(*args)


def test_what_is_pinned(minio, objects, tmp_path):
    assert pull(minio.env, f"s3://{objects}", tmp_path / "tree").returncode == 0
    digest = by_coreutils(tmp_path / "tree")
    assert pull(minio.env, f"stoker+s3://{objects}", tmp_path / "models").returncode == 0
    with serve(tmp_path / "models", tmp_path / "cache", f"--storage_digest={digest}") as server:
        assert_serves_iris(server)
    wrong = "sha256:" + "0" * 64
    args = [f"--model_dir={tmp_path / 'models'}", f"--cache_dir={tmp_path / 'cache'}", f"--storage_digest={wrong}"]
    assert "is pinned" in failure("--model_name=m", *args)
    # The init container may be the one that was told.
    for pinned, folder in [(digest, tmp_path / "right"), (wrong, tmp_path / "wrong")]:
        assert pull(minio.env | {"STOKER_STORAGE_DIGEST": pinned}, f"stoker+s3://{objects}", folder).returncode == 0
    with serve(tmp_path / "right", tmp_path / "another") as server:
        assert_serves_iris(server)
        assert server.event("model fetched")["uri"] == f"s3://{objects}"
    for cache in ["another", "third"]:
        args = [f"--model_dir={tmp_path / 'wrong'}", f"--cache_dir={tmp_path / cache}"]
        assert f"{wrong} is pinned" in failure("--model_name=m", *args)


def test_several_sources(minio, bucket, tmp_path):
    """As KServe's storageUris: below the model's directory, beside each other, or beside what is copied."""
    name = bucket({"m/model.onnx": IRIS, "more/labels.txt": b"x"})
    uris = [f"s3://{name}/m", f"s3://{name}/more"]
    for number, (first, second, below) in enumerate(
        [("stoker+", "stoker+", ""), ("stoker+", "", ""), ("", "stoker+", ""), ("stoker+", "stoker+", "1")]
    ):
        models = tmp_path / f"models{number}"
        done = pull(minio.env, first + uris[0], models / below, second + uris[1], models / "extra")
        assert done.returncode == 0, done.stderr
        with serve(models, tmp_path / f"cache{number}") as server:
            assert_serves_iris(server)
            cached = cached_files(tmp_path / f"cache{number}")
            assert cached == {str(Path(below, "model.onnx")): IRIS, "extra/labels.txt": b"x"}
    done = pull(minio.env, f"stoker+{uris[0]}", tmp_path / "same", f"stoker+{uris[1]}", tmp_path / "same")
    assert done.returncode == 1 and "two sources are to be handed over there" in done.stderr
    pinned = minio.env | {"STOKER_STORAGE_DIGEST": ",".join(["sha256:" + "0" * 64] * 2)}
    done = pull(pinned, f"stoker+{uris[0]}", tmp_path / "a", f"stoker+{uris[1]}", tmp_path / "b")
    assert done.returncode == 1 and "cannot be handed over with a digest" in done.stderr


def test_a_public_bucket_a_pattern_and_an_archive(minio, bucket, tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/model.onnx").write_bytes(IRIS)
    subprocess.run(["tar", "czf", tmp_path / "m.tar.gz", "-C", tmp_path / "tree", "."], check=True)
    name = bucket({"m/m.tar.gz": (tmp_path / "m.tar.gz").read_bytes(), "m/notes.txt": b"no"})
    rule = {"Effect": "Allow", "Principal": "*", "Action": ["s3:GetObject", "s3:ListBucket"]}
    rule["Resource"] = [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"]
    minio.client().put_bucket_policy(Bucket=name, Policy=json.dumps({"Version": "2012-10-17", "Statement": [rule]}))
    env = {"AWS_ENDPOINT_URL": minio.endpoint, "awsAnonymousCredential": "true", "STORAGE_IGNORE_PATTERNS": "*.txt"}
    done = pull(env, f"stoker+s3://{name}/m", tmp_path / "models")
    assert done.returncode == 0, done.stderr
    with serve(tmp_path / "models", tmp_path / "cache") as server:
        assert_serves_iris(server)
        assert cached_files(tmp_path / "cache") == {"model.onnx": IRIS}


def test_a_name_of_mlflow(mlflow_env, tracking, tmp_path):
    assert pull(mlflow_env, "stoker+models:/bucket@champion", tmp_path / "models").returncode == 0
    model = tracking.models["bucket"]
    with serve(tmp_path / "models", tmp_path / "cache") as server:
        assert predict(server, "iris", {"instances": model["rows"]}) == model["predictions"]
    served = pull(mlflow_env, "stoker+models:/served@champion", tmp_path / "models")
    assert "only what lies in S3 can be handed over" in served.stderr.splitlines()[-1]


def test_a_handover_leads_nowhere_else(minio, bucket, tmp_path):
    assert pull(minio.env, f"stoker+s3://{bucket({'m/model.onnx': IRIS})}/m", tmp_path).returncode == 0
    handed = json.loads((tmp_path / NAME).read_text())
    handed["files"][0]["path"] = "../model.onnx"
    (tmp_path / NAME).write_text(json.dumps(handed))
    assert "is no path below the model directory" in failure("--model_name=m", f"--model_dir={tmp_path}")
    (tmp_path / NAME).write_text("{")
    assert NAME in failure("--model_name=m", f"--model_dir={tmp_path}")


@pytest.mark.parametrize("container", CONTAINERS, ids=[each["metadata"]["name"] for each in CONTAINERS])
def test_the_manifests(minio, bucket, tmp_path, container):
    """What KServe would run: the container's command with a source and a directory."""
    spec = container["spec"]
    assert (container["apiVersion"], container["kind"]) == ("serving.kserve.io/v1alpha1", "ClusterStorageContainer")
    assert (spec["container"]["name"], spec["workloadType"]) == ("storage-initializer", "initContainer")
    program, *command = spec["container"]["command"]
    assert program == "/usr/bin/stoker"
    name = bucket({"m/model.onnx": IRIS})
    [prefix] = [uri["prefix"] for uri in spec["supportedUriFormats"] if uri["prefix"].endswith("s3://")]
    env = {name: str(value) for name, value in minio.env.items()} | {"STOKER_STORAGE_DIGEST": ""}
    arguments = [f"{prefix}{name}/m", tmp_path / "models", f"{prefix}{name}/m", tmp_path / "more"]
    subprocess.run([servers.STOKER, *command, *arguments], env=env, check=True, timeout=servers.PATIENCE)
    for folder in ["models", "more"]:
        with serve(tmp_path / folder, tmp_path / "cache") as server:
            assert_serves_iris(server)
