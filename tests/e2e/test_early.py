"""Models that are computed here are read while they come: before the last byte is there, and never served of bytes that
turned out to be others."""

import threading

import pytest

import faults
import servers
from servers import PATIENCE, ROOT, eventually

MODEL = (ROOT / "tests/tabular/lightgbm/regression.txt").read_text()
ROWS = {"instances": [[0.1, -1.0, 2.0, 0.5, 0.3], [3.0, 0.0, -2.0, 1.0, 0.0]]}
# Of which a file comes that is read early, when it has more than 8 MiB.
PART_BYTES = 512 << 10


def forest(mebibytes, damage=lambda tree: tree):
    """The committed model with its trees again and again, and the text of one of them damaged."""
    header, trees = MODEL.split("\n\n", 1)
    trees, footer = trees.split("end of trees", 1)
    trees = [tree for tree in trees.split("\n\n\n") if tree.strip()]
    body, sizes, count = [], [], 0
    while count < mebibytes << 20:
        tree = "\n".join([f"Tree={len(body)}", *trees[len(body) % len(trees)].strip().split("\n")[1:]]) + "\n\n\n"
        if len(body) == 10:
            tree = damage(tree)
        body.append(tree)
        sizes.append(len(tree))
        count += len(tree)
    lines = [line for line in header.split("\n") if not line.startswith("tree_sizes")]
    sizes = "tree_sizes=" + " ".join(map(str, sizes))
    return "\n".join([*lines, sizes, "", ""]).encode() + "".join(body).encode() + b"end of trees" + footer.encode()


@pytest.fixture(scope="module")
def large():
    return forest(9)


@pytest.fixture
def proxy(minio):
    with faults.proxy(minio.port) as server:
        yield server


def serve(minio, proxy, uri, cache, ready=True):
    env = minio.env | {"AWS_ENDPOINT_URL": proxy.url, "S3_MAX_ATTEMPTS": 3}
    flags = ["--model_name=m", f"--storage_uri={uri}", f"--cache_dir={cache}", "--log_level=debug"]
    return servers.stoker(*flags, env=env, ready=ready)


def expected(model):
    """The answer of the same model from the disk."""
    with servers.stoker("--model_name=m", f"--model_dir={model}") as server:
        return server.post("/v1/models/m:predict", ROWS).body


@pytest.mark.parametrize("cache", ["disk", "none"])
def test_what_is_wrong_is_seen_before_the_last_byte_is_there(minio, bucket, proxy, tmp_path, cache):
    broken = forest(9, lambda tree: tree.replace("split_feature=", "split_feature=99 "))
    last = len(broken) - len(broken) % PART_BYTES
    release = threading.Event()

    def hold(exchange):
        if exchange.seen.range and exchange.seen.range[0] == last:
            release.wait(PATIENCE)
        faults.relay()(exchange)

    proxy.script("read", hold)
    uri = f"s3://{bucket({'m/model.txt': broken})}/m"
    with serve(minio, proxy, uri, tmp_path if cache == "disk" else cache, ready=False) as server:
        early = server.event("not loaded while it came")
        assert "tree 10" in early["error"] and not release.is_set()
        release.set()
        assert server.wait() == 1
        said = server.events()[-1]["error"]
        assert "tree 10" in said and uri in said or "model.txt" in said
        assert "fetched" in str([event["message"] for event in server.events()])


@pytest.mark.parametrize("cache", ["disk", "none"])
def test_what_is_damaged_on_its_way_is_read_again(minio, bucket, proxy, tmp_path, large, cache):
    (tmp_path / "model.txt").write_bytes(large)
    wanted = expected(tmp_path / "model.txt")
    # A digit of a leaf: what is read of it early is a model, too.
    at = large.index(b"leaf_value=") + len("leaf_value=-0.")
    assert at < PART_BYTES and large[at : at + 1] != b"9"
    damaged = []

    def change(begin, piece):
        within = at - begin
        return piece[:within] + b"9" + piece[within + 1 :] if 0 <= within < len(piece) else piece

    def damage(exchange):
        is_first = exchange.seen.range and exchange.seen.range[0] == 0
        (faults.relay(change=change) if is_first and not damaged else faults.relay())(exchange)
        if is_first:
            damaged.append(True)

    proxy.script("read", damage)
    uri = f"s3://{bucket({'m/model.txt': large})}/m"
    with serve(minio, proxy, uri, tmp_path / "cache" if cache == "disk" else cache) as server:
        assert damaged
        assert "fetching it again" in server.log()
        answer = server.post("/v1/models/m:predict", ROWS)
        assert (answer.status, answer.body) == (200, wanted)


@pytest.mark.parametrize("cache", ["disk", "none"])
def test_a_download_that_fails_is_what_is_told(minio, bucket, proxy, tmp_path, large, cache):
    proxy.script("read", faults.refuse(403, "AccessDenied", "no"), skip=2)
    uri = f"s3://{bucket({'m/model.txt': large})}/m"
    with serve(minio, proxy, uri, tmp_path if cache == "disk" else cache, ready=False) as server:
        assert server.wait() == 1
        said = server.events()[-1]["error"]
        assert "m/model.txt" in said and "access is denied" in said.lower(), said


def test_a_small_file_beside_says_which_is_the_model(minio, bucket, proxy, tmp_path, large):
    """MLflow's description is needed first, and may come last."""
    release = threading.Event()

    def hold(exchange):
        if exchange.seen.key.endswith("MLmodel"):
            release.wait(PATIENCE)
        faults.relay()(exchange)

    proxy.script("read", hold)
    described = b"flavors:\n  lightgbm:\n    data: forest.txt\n    model_class: lightgbm.basic.Booster\n"
    uri = f"s3://{bucket({'m/MLmodel': described, 'm/forest.txt': large})}/m"
    (tmp_path / "model.txt").write_bytes(large)
    wanted = expected(tmp_path / "model.txt")
    with serve(minio, proxy, uri, tmp_path / "cache", ready=False) as server:
        eventually(lambda: len(proxy.asked("read", "m/forest.txt")) > 3, "the forest")
        release.set()
        eventually(server.is_ready, "a ready server")
        assert server.post("/v1/models/m:predict", ROWS).body == wanted
