"""Models straight into memory (`--cache_dir=none`): no file is written, and they answer as they do from the disk."""

import contextlib
import os
import signal

import pytest

import servers
from models import MODELS
from servers import ROOT, eventually, failure
from test_mlflow import predict
from test_pin import by_coreutils
from test_pull import pull
from test_s3 import BIG, IRIS, assert_serves_iris

FOLDERS = {
    "onnx": MODELS / "iris",
    "weights beside": MODELS / "beside",
    "sklearn": ROOT / "tests/tabular/cases/linear_Ridge_one_target",
}
ASK = {
    "onnx": {"instances": [[5.1, 3.5, 1.4, 0.2]]},
    "weights beside": {"instances": [[0.5, 0, -2], [3, 4, 5]]},
    "sklearn": {"instances": [[1.5, -2.0, 0.25, 3.0, -0.5]]},
}


def in_memory(uri, *flags):
    return ["--model_name=iris", f"--storage_uri={uri}", "--cache_dir=none", *flags]


@pytest.mark.parametrize("kind", FOLDERS)
@pytest.mark.parametrize("below", ["", "3/"], ids=["flat", "version"])
def test_answers_are_those_from_the_disk(minio, bucket, tmp_path, kind, below):
    folder = FOLDERS[kind]
    objects = {
        f"m/{below}{path.relative_to(folder)}": path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("reference.json", "case.json")
    }
    uri = f"s3://{bucket(objects)}/m"
    with servers.stoker("--model_name=iris", f"--storage_uri={uri}", f"--cache_dir={tmp_path}", env=minio.env) as server:
        expected = server.post("/v1/models/iris:predict", ASK[kind])
        assert expected.status == 200, expected.body
    with servers.stoker(*in_memory(uri), env=minio.env) as server:
        answer = server.post("/v1/models/iris:predict", ASK[kind])
        assert (answer.status, answer.body) == (200, expected.body)
        assert answer.headers["x-model-version"] == (below or "1/").rstrip("/")
        fetched = server.event("model fetched into memory")
        assert (fetched["files"], fetched["bytes"]) == (len(objects), sum(map(len, objects.values())))
        assert not any("stoker-cache" in path or str(tmp_path) in path for path in opened(server.child.pid))


def opened(pid):
    """What a process has open, but for what it closes meanwhile."""
    for link in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            yield os.readlink(link)


def test_a_name_of_mlflow(mlflow_env, tracking):
    for place in ["bucket", "served"]:
        model = tracking.models[place]
        with servers.stoker(*in_memory(f"models:/{place}@champion"), env=mlflow_env) as server:
            assert predict(server, "iris", {"instances": model["rows"]}) == model["predictions"]


def test_what_is_pinned(minio, bucket, tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "model.onnx").write_bytes(IRIS)
    (tmp_path / "deep/weights.bin").write_bytes(BIG)
    uri = f"s3://{bucket({'m/model.onnx': IRIS, 'm/deep/weights.bin': BIG})}/m"
    with servers.stoker(*in_memory(uri, f"--storage_digest={by_coreutils(tmp_path)}"), env=minio.env) as server:
        assert_serves_iris(server)
    wrong = "sha256:" + "0" * 64
    assert f"{wrong} is pinned" in failure(*in_memory(uri, f"--storage_digest={wrong}"), env=minio.env)


def test_a_reload(minio, bucket):
    name = bucket({"m/model.onnx": IRIS, "m/notes": b"1"})
    with servers.stoker(*in_memory(f"s3://{name}/m"), env=minio.env) as server:
        assert server.post("/v2/repository/models/iris/load", {}).status == 200
        minio.client().put_object(Bucket=name, Key="m/notes", Body=b"2")
        os.kill(server.child.pid, signal.SIGHUP)
        eventually(lambda: "the version from before has left" in server.log(), "a reload")
        assert_serves_iris(server)


def test_what_cannot_be_is_said(minio, bucket):
    archive = f"s3://{bucket({'m.tar.gz': b'x'})}/m.tar.gz"
    assert "give a --cache_dir" in failure(*in_memory(archive), env=minio.env)
    assert "there is no object below it" in failure(*in_memory(f"s3://{bucket({})}/m"), env=minio.env)
    two = f"s3://{bucket({'m/a.onnx': IRIS, 'm/b.onnx': IRIS})}/m"
    message = failure(*in_memory(two), env=minio.env)
    assert two in message and "exactly one: a.onnx, b.onnx" in message


def test_how_fast_that_is(minio, bucket, tmp_path):
    uri = f"s3://{bucket({'m/model.onnx': IRIS, 'm/weights.bin': BIG})}/m"
    done = pull(minio.env, "--bench", uri, tmp_path / "models")
    assert done.returncode == 0, done.stderr
    title, raw, memory, disk = done.stdout.splitlines()
    assert title.startswith(f"{uri}: 2 files, 42.0 MB, listed in 0.")
    assert "raw parallel GET" in raw and raw.endswith("1.00 of raw")
    assert "straight into memory" in memory and f"to {tmp_path / 'models'}" in disk
    assert list((tmp_path / "models").iterdir()) == []
    done = pull({}, "--bench", tmp_path, tmp_path)
    assert "there is nothing to measure" in done.stderr
