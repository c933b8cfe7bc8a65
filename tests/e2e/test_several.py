"""Several sources of one model, as KServe's `storageUris`: what `stoker pull` brings of them is what `serve` serves."""

import json

import servers
from hub import hub
from servers import failure
from test_pull import files, pull
from test_s3 import BIG, IRIS, assert_serves_iris, cached_files


def test_each_below_its_mount_path(minio, bucket, tmp_path):
    (tmp_path / "pvc/deep").mkdir(parents=True)
    (tmp_path / "pvc/deep/tokenizer.json").write_bytes(b"{}")
    store = bucket({"m/model.onnx": IRIS, "m/weights.bin": BIG, "other/a": b"a"})
    with hub({"owner/config": {"main": {"config.json": b"[]"}}}) as models:
        env = minio.env | {"HF_ENDPOINT": models.url}
        sources = {
            f"s3://{store}/m": "/mnt/models",
            f"s3://{store}/other": "/mnt/models/extra/one",
            "hf://owner/config": "/mnt/models/extra/two",
            str(tmp_path / "pvc"): "/mnt/models/text",
        }
        pairs = [(uri, tmp_path / f"pulled{path}") for uri, path in sources.items()]
        done = pull(env, *(each for pair in pairs for each in pair))
        assert done.returncode == 0, done.stderr
        uris = [{"uri": uri, "mountPath": path} for uri, path in sources.items()]
        args = ["--model_name=iris", f"--storage_uris={json.dumps(uris)}", f"--cache_dir={tmp_path / 'cache'}"]
        for cached in [False, True]:
            with servers.stoker(*args, env=env) as server:
                assert_serves_iris(server)
                assert server.event("model fetched")["cached"] == cached
    expected = files(tmp_path / "pulled/mnt/models")
    expected["text/deep/tokenizer.json"] = b"{}"  # of a link to a folder
    assert cached_files(tmp_path / "cache") == expected


def test_files_of_one_name(minio, bucket, tmp_path):
    uris = [{"uri": f"s3://{bucket({'m/model.onnx': IRIS})}/m"} for _ in range(2)]
    args = ["--model_name=iris", f"--storage_uris={json.dumps(uris)}", f"--cache_dir={tmp_path}"]
    assert '"model.onnx" comes from two of the sources' in failure(*args, env=minio.env)


def test_an_archive_is_for_pull(minio, bucket, tmp_path):
    name = bucket({"m/model.onnx": IRIS, "more/m.tar.gz": b""})
    uris = [{"uri": f"s3://{name}/m"}, {"uri": f"s3://{name}/more", "mountPath": "/mnt/models/more"}]
    args = ["--model_name=iris", f"--storage_uris={json.dumps(uris)}", f"--cache_dir={tmp_path}"]
    assert "let stoker pull bring it" in failure(*args, env=minio.env)
