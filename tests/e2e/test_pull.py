"""`stoker pull` as KServe's storage initializer: the same arguments and variables, the files that it would leave."""

import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

import faults
import servers
from test_s3 import BIG, IRIS, LAYOUTS


def pull(env, *args):
    command = [servers.STOKER, "pull", *map(str, args)]
    env = {name: str(value) for name, value in env.items()}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=servers.PATIENCE)


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("objects", "path", "expected"), LAYOUTS.values(), ids=LAYOUTS)
def test_layouts(minio, bucket, tmp_path, objects, path, expected):
    done = pull(minio.env, f"s3://{bucket(objects)}/{path}", tmp_path / "models")
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "models") == expected


def test_several_sources_and_patterns(minio, bucket, tmp_path):
    name = bucket({"a/x.json": b"{}", "a/deep/y.json": b"{}", "a/z.bin": b"z", "b/m.json": b"m", "b/secret.json": b"s"})
    env = minio.env | {"STORAGE_ALLOW_PATTERNS": '["*.json"]', "STORAGE_IGNORE_PATTERNS": "secret*"}
    done = pull(env, f"s3://{name}/a", tmp_path / "one", f"s3://{name}/b", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert set(files(tmp_path / "one")) == {"x.json", "deep/y.json"}
    assert set(files(tmp_path / "two")) == {"m.json"}


def test_again_over_what_is_there(minio, bucket, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"an older and longer model" * 1000)
    assert pull(minio.env, f"s3://{bucket({'m/model.onnx': IRIS})}/m", tmp_path).returncode == 0
    assert (tmp_path / "model.onnx").read_bytes() == IRIS


def test_several_at_once_into_one_directory(minio, bucket, tmp_path):
    uri = f"s3://{bucket({f'm/{number}': BIG[: 1 << 20] for number in range(20)})}/m"
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: pull(minio.env, uri, tmp_path), range(4)))
    assert [each.returncode for each in done] == [0] * 4, [each.stderr for each in done]
    assert files(tmp_path) == {str(number): BIG[: 1 << 20] for number in range(20)}


def test_what_was_on_its_way_before_is_left_out(minio, bucket, tmp_path):
    """Killed half-way, and then the model is another one."""
    name, s3 = bucket({"m/model.onnx": IRIS, "m/v1.bin": BIG}), minio.client()
    with faults.proxy(minio.port) as proxy:
        proxy.script("read", faults.stall(100_000), key="m/v1.bin")
        env = minio.env | {"AWS_ENDPOINT_URL": proxy.url}
        env = {name: str(value) for name, value in env.items()}
        killed = subprocess.Popen([servers.STOKER, "pull", f"s3://{name}/m", tmp_path], env=env)
        servers.eventually(lambda: list(tmp_path.glob(".stoker-pull/*/files/v1.bin")), "some of it")
        killed.kill()
        killed.wait()
    s3.delete_object(Bucket=name, Key="m/v1.bin")
    s3.put_object(Bucket=name, Key="m/v2.bin", Body=b"new")
    assert pull(minio.env, f"s3://{name}/m", tmp_path).returncode == 0
    assert files(tmp_path) == {"model.onnx": IRIS, "v2.bin": b"new"}


def test_a_storage_spec(minio, bucket, tmp_path):
    spec = f'{{"type": "s3", "access_key_id": "{minio.ACCESS_KEY}", "secret_access_key": "wrong", "region": "eu"}}'
    change = f'{{"secret_access_key": "{minio.SECRET_KEY}", "endpoint_url": "{minio.endpoint}", "region": "us-east-1"}}'
    env = {"STORAGE_CONFIG": spec, "STORAGE_OVERRIDE_CONFIG": change}
    done = pull(env, f"s3://{bucket({'m/model.onnx': IRIS})}/m", tmp_path)
    assert (done.returncode, files(tmp_path)) == (0, {"model.onnx": IRIS}), done.stderr


def test_a_local_directory_is_linked(tmp_path):
    (tmp_path / "pvc/deep").mkdir(parents=True)
    (tmp_path / "pvc/model.onnx").write_bytes(IRIS)
    (tmp_path / "pvc/.hidden").write_bytes(b"")
    for number, uri in enumerate([f"file://{tmp_path}/pvc", f"{tmp_path}/pvc/model.onnx"]):
        assert pull({}, uri, tmp_path / f"models{number}").returncode == 0
        assert (tmp_path / f"models{number}/model.onnx").read_bytes() == IRIS
    assert sorted(path.name for path in (tmp_path / "models0").iterdir()) == ["deep", "model.onnx"]


def test_what_is_wrong_is_said_in_the_last_line(minio, bucket, tmp_path):
    for env, args, message in [
        (minio.env, ["s3://b/m"], "expected sources and directories by turns"),
        (minio.env, ["gs://b/m", tmp_path], 'scheme "gs" is not supported'),
        (minio.env, [f"s3://{bucket({})}/m", tmp_path], "there is no object below it"),
        (minio.env | {"AWS_SECRET_ACCESS_KEY": "x"}, [f"s3://{bucket({})}/m", tmp_path], "AWS_SECRET_ACCESS_KEY"),
        (minio.env | {"STORAGE_ALLOW_PATTERNS": "*.x"}, [f"s3://{bucket({'m/a': b''})}/m", tmp_path], "that is wanted"),
        ({}, [tmp_path / "nothing", tmp_path / "models"], "No such file or directory"),
    ]:
        done = pull(env, *args)
        assert done.returncode == 1
        assert message in done.stderr.splitlines()[-1]
