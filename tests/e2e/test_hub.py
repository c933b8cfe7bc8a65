"""Models of a hub. It is a double, so each tree is also brought by the hub's own client, which must find the same."""

import pytest
from huggingface_hub import snapshot_download

import servers
from hub import TOKEN, commit, hub
from test_pull import files, pull
from test_s3 import BIG, IRIS, assert_serves_iris
from webserver import Reply, web

REPOSITORY = {
    "main": {
        "README.md": b"# iris",
        ".gitattributes": b"*.bin filter=lfs",
        "onnx/model.onnx": IRIS,
        "onnx/deep/odd name+%41 ü.txt": b"",
        "weights.bin": BIG,
    },
    "v1.0": {"onnx/model.onnx": IRIS, "config.json": b"{}"},
    "refs/pr/1": {"model.onnx": IRIS},
}


@pytest.fixture
def iris():
    with hub({"owner/iris": REPOSITORY, "owner/secret": REPOSITORY}, private=["owner/secret"]) as server:
        yield server


def pulled(server, uri, folder, **env):
    done = pull({"HF_ENDPOINT": server.url, **env}, uri, folder)
    assert done.returncode == 0, done.stderr
    return files(folder)


def by_its_client(server, folder, repo, revision, token=False):
    snapshot_download(repo, revision=revision, endpoint=server.url, local_dir=folder, token=token)
    return {path: content for path, content in files(folder).items() if not path.startswith(".cache/")}


@pytest.mark.parametrize(
    ("suffix", "revision"),
    [("", "main"), (":v1.0", "v1.0"), ("@refs%2Fpr%2F1", "refs/pr/1"), (f":{commit('owner/iris', 'v1.0')}", "v1.0")],
)
def test_a_revision_is_what_the_hubs_client_finds(iris, tmp_path, suffix, revision):
    expected = by_its_client(iris, tmp_path / "theirs", "owner/iris", revision)
    assert expected == REPOSITORY[revision]
    assert pulled(iris, f"hf://owner/iris{suffix}", tmp_path / "ours") == expected


def test_a_folder_or_a_file_of_it(iris, tmp_path):
    whole = REPOSITORY["main"]
    below = {path.removeprefix("onnx/"): content for path, content in whole.items() if path.startswith("onnx/")}
    assert pulled(iris, "hf://owner/iris/onnx/", tmp_path / "folder") == below
    assert pulled(iris, "hf://owner/iris@main/weights.bin", tmp_path / "file") == {"weights.bin": BIG}
    wanted = pulled(iris, "hf://owner/iris", tmp_path / "wanted", STORAGE_ALLOW_PATTERNS="*.onnx")
    assert wanted == {"onnx/model.onnx": IRIS}


def test_the_token_is_for_the_hub_alone(iris, tmp_path):
    expected = by_its_client(iris, tmp_path / "theirs", "owner/secret", "main", TOKEN)
    assert pulled(iris, "hf://owner/secret", tmp_path / "ours", HF_TOKEN=TOKEN) == expected == REPOSITORY["main"]
    assert {asked.headers["Authorization"] for asked in iris.asked} == {f"Bearer {TOKEN}"}
    assert {asked.headers["Authorization"] for asked in iris.cdn.asked} == {None}


def test_a_branch_is_resolved_once_and_read_again_only_when_it_moved(iris, tmp_path):
    def serve():
        args = ["--model_name=iris", "--storage_uri=hf://owner/iris:v1.0/onnx", f"--cache_dir={tmp_path}"]
        with servers.stoker(*args, env={"HF_ENDPOINT": iris.url}) as server:
            assert_serves_iris(server)
            assert server.event("model resolved")["resolved"] == commit("owner/iris", "v1.0")
            return server.event("model fetched")["cached"]

    assert [serve(), serve()] == [False, True]
    assert len([asked for asked in iris.asked if "/revision/" in asked.path]) == 2
    assert not [asked for asked in iris.asked if "/resolve/v1.0" in asked.path]


@pytest.mark.parametrize(("content", "parts"), [(BIG, 5), (BIG[: 2 << 20], 1)])
def test_a_wrong_bit_is_noticed(tmp_path, content, parts):
    with hub({"owner/m": {"main": {"weights.bin": content}}}) as server:
        server.double.damaged = parts  # all of the first attempt
        assert pulled(server, "hf://owner/m", tmp_path / "once") == {"weights.bin": content}
        server.double.damaged = 100
        done = pull({"HF_ENDPOINT": server.url}, "hf://owner/m", tmp_path / "always")
        assert "weights.bin: damaged in the store or on the way here" in done.stderr.splitlines()[-1]


def test_each_cause_of_failure_has_its_message(iris, tmp_path):
    def reason(uri, **env):
        done = pull({"HF_ENDPOINT": iris.url, **env}, uri, tmp_path)
        assert done.returncode == 1 and files(tmp_path) == {}
        return done.stderr.splitlines()[-1]

    assert "is private, or there is none: set HF_TOKEN" in reason("hf://owner/secret")
    assert "HF_TOKEN is wrong" in reason("hf://owner/secret", HF_TOKEN="hush")
    assert "hush" not in reason("hf://owner/secret", HF_TOKEN="hush")
    assert "there is no such repository" in reason("hf://owner/none", HF_TOKEN=TOKEN)
    assert "there is no such revision" in reason("hf://owner/iris:v2")
    assert 'has no "onnx/none.onnx"' in reason("hf://owner/iris/onnx/none.onnx")
    assert "expected hf://owner/name" in reason("hf://iris")
    assert "HF_ENDPOINT: " in reason("hf://owner/iris", HF_ENDPOINT="hub")
    with web(lambda asked: Reply(body=b"hello")) as other:
        assert "is this the right server?" in reason("hf://owner/iris", HF_ENDPOINT=other.url)


def test_gated_models(tmp_path):
    with hub({"owner/gated": REPOSITORY}, gated=["owner/gated"]) as server:
        done = pull({"HF_ENDPOINT": server.url}, "hf://owner/gated", tmp_path / "none")
        assert "is gated: accept its terms at the hub and set HF_TOKEN" in done.stderr.splitlines()[-1]
        assert pulled(server, "hf://owner/gated", tmp_path / "ours", HF_TOKEN=TOKEN) == REPOSITORY["main"]
