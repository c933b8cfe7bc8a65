"""Pulling from a real S3 server through a proxy that breaks things: it works in the end, or says what to do."""

import io
import random
import subprocess
import tarfile
import time
from base64 import b64encode
from contextlib import ExitStack

import pytest
from boto3.s3.transfer import TransferConfig

import faults
import servers
from faults import chunked, flip, garbage, refuse, reset, rewrite, say, silence, slow, stall, truncate, unframed
from servers import failure
from test_pull import files, pull
from test_s3 import IRIS, assert_serves_iris, cached_files

# Longer than any case may take with timeouts of a second and two attempts.
LIMIT_SECONDS = 10

WEIGHTS = random.Random(7).randbytes(1 << 20)
# A server's read is this much at most before it counts as progress.
STEP_BYTES = 256 << 10
OBJECTS = {"m/model.onnx": IRIS, "m/weights.bin": WEIGHTS}
TREE = {"model.onnx": IRIS, "weights.bin": WEIGHTS}


@pytest.fixture
def proxy(minio):
    with faults.proxy(minio.port) as server:
        yield server


@pytest.fixture
def env(minio, proxy):
    """The environment of whoever reads through the proxy."""
    return minio.env | {"AWS_ENDPOINT_URL": proxy.url, "S3_READ_TIMEOUT": 1, "S3_MAX_ATTEMPTS": 2}


def pull_in_time(env, *args):
    begun = time.monotonic()
    done = pull(env, *args)
    assert time.monotonic() - begun < LIMIT_SECONDS
    return done


def assert_pulls(env, uri, target, tree):
    done = pull_in_time(env, uri, target)
    assert done.returncode == 0, done.stderr
    assert files(target) == tree


def refusal(env, uri, target):
    """What is said in the end."""
    done = pull_in_time(env, uri, target)
    assert done.returncode == 1, "it should not have worked"
    return done.stderr.splitlines()[-1]


WEIGHTS_ONLY = {"key": "m/weights.bin"}
ONCE = {"times": 1}

BREAKS = {
    "stalled": stall(700_000),
    "truncated": truncate(700_000),
    "reset": reset(700_000),
    "an early end without a length": unframed(700_000),
}


@pytest.mark.parametrize("fault", BREAKS.values(), ids=BREAKS)
def test_what_breaks_goes_on_where_it_broke(bucket, proxy, env, tmp_path, fault):
    proxy.script("read", fault, **WEIGHTS_ONLY, **ONCE)
    assert_pulls(env, f"s3://{bucket(OBJECTS)}/m", tmp_path, TREE)
    first, second = proxy.asked("read", "m/weights.bin")
    begin, end = second.range
    assert 0 < begin <= first.body_bytes and end == len(WEIGHTS) - 1
    assert first.body_bytes + second.body_bytes < len(WEIGHTS) + STEP_BYTES


def test_a_line_that_breaks_early_each_time_still_gets_there(bucket, proxy, env, tmp_path):
    proxy.script("read", truncate(200_000), **WEIGHTS_ONLY)
    assert_pulls(env, f"s3://{bucket(OBJECTS)}/m", tmp_path, TREE)


SLOW_DOWN = ("SlowDown", "Please reduce your request rate.")

# The step, what happens to it once, and how long stoker has to wait then.
PASSING = {
    "no answer": ("read", silence(), 1),
    "no body": ("read", truncate(0), 0),
    "500": ("read", refuse(500, "InternalError"), 0),
    "503": ("read", refuse(503, *SLOW_DOWN), 0),
    "503 with Retry-After": ("read", refuse(503, *SLOW_DOWN, Retry_After=1), 1),
    "429 with Retry-After": ("read", refuse(429, "TooManyRequests", Retry_After=1), 1),
    "503 for the list, with Retry-After": ("list", refuse(503, *SLOW_DOWN, Retry_After=1), 1),
    "half a list": ("list", truncate(100), 0),
    "a list reset": ("list", reset(100), 0),
    "a stalled list": ("list", stall(100), 1),
}


@pytest.mark.parametrize(("step", "fault", "wait"), PASSING.values(), ids=PASSING)
def test_what_fails_once_is_asked_again(bucket, proxy, env, tmp_path, step, fault, wait):
    key = "" if step == "list" else "m/weights.bin"
    proxy.script(step, fault, key=key, **ONCE)
    assert_pulls(env, f"s3://{bucket(OBJECTS)}/m", tmp_path, TREE)
    first, second = proxy.asked(step, key)
    assert wait <= second.at - first.at < wait + 1


SUFFERED = {"slow": slow(600_000), "chunked": chunked}


@pytest.mark.parametrize("fault", SUFFERED.values(), ids=SUFFERED)
def test_what_is_only_odd_is_asked_once(bucket, proxy, env, tmp_path, fault):
    proxy.script("read", fault)
    assert_pulls(env, f"s3://{bucket(OBJECTS)}/m", tmp_path, TREE)
    assert len(proxy.asked("read")) == len(OBJECTS)


def test_a_chunked_list_is_read(bucket, proxy, env, tmp_path):
    proxy.script("list", chunked)
    assert_pulls(env, f"s3://{bucket(OBJECTS)}/m", tmp_path, TREE)


DENIED = refuse(403, "AccessDenied", "Access Denied.")
EXPIRED = refuse(400, "ExpiredToken", "The provided token has expired.")
MOVED = refuse(
    301,
    "PermanentRedirect",
    "The bucket you are attempting to access must be addressed using the specified endpoint.",
    "<Endpoint>b.s3.eu-west-1.amazonaws.com</Endpoint>",
    x_amz_bucket_region="eu-west-1",
)
ELSEWHERE = refuse(
    400,
    "AuthorizationHeaderMalformed",
    "The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-west-1'",
    "<Region>eu-west-1</Region>",
)
HTML = say(b"<html><body>It works!</body></html>")


# What happens at a step each time, and what must be said of it. None may say what another says, unless it is the same.
REFUSED = {
    "no answer": ("read", silence(), "no answer in time (S3_READ_TIMEOUT)"),
    "stalled": ("read", stall(100), "no answer in time (S3_READ_TIMEOUT)"),
    "a stalled list": ("list", stall(100), "no answer in time (S3_READ_TIMEOUT)"),
    "truncated": ("read", truncate(100), "the server closed the connection"),
    "reset": ("read", reset(100), "the server closed the connection"),
    "half a list": ("list", truncate(100), "the server closed the connection"),
    "garbage": ("read", garbage, "what came is no HTTP"),
    "a garbage list": ("list", garbage, "what came is no HTTP"),
    "HTML for a list": ("list", HTML, "is not S3's: does the endpoint lead to the S3 API"),
    "403": ("read", DENIED, "access is denied"),
    "403 for the list": ("list", DENIED, "access is denied"),
    "403 for one object": ("look up", refuse(403), "access is denied"),
    "404": ("read", refuse(404, "NoSuchKey"), "the object does not exist"),
    "404 for the list": ("list", refuse(404, "NoSuchBucket"), '" does not exist'),
    "412": ("read", refuse(412, "PreconditionFailed"), "the object was replaced while it was being read: load again"),
    "429": ("read", refuse(429, "TooManyRequests"), "the S3 server is overloaded"),
    "503": ("read", refuse(503, *SLOW_DOWN), "the S3 server is overloaded"),
    "503 for the list": ("list", refuse(503, *SLOW_DOWN), "the S3 server is overloaded"),
    "503 for one object": ("look up", refuse(503), "the S3 server is overloaded"),
    "500": ("read", refuse(500, "InternalError"), "status 500"),
    "500 for one object": ("look up", refuse(500), "status 500"),
    "expired": ("read", EXPIRED, "(AWS_SESSION_TOKEN)"),
    "expired before the list": ("list", EXPIRED, "(AWS_SESSION_TOKEN)"),
    "another region": ("list", ELSEWHERE, "the region is wrong (AWS_DEFAULT_REGION)"),
    "moved": ("list", MOVED, "the region is wrong (AWS_DEFAULT_REGION)"),
    "another length": ("read", say(b"short"), "the answer has 5"),
}

@pytest.mark.parametrize(("step", "fault", "message"), REFUSED.values(), ids=REFUSED)
def test_what_fails_each_time_says_so(bucket, proxy, env, tmp_path, step, fault, message):
    proxy.script(step, fault, key="" if step == "list" else "m/weights.bin")
    name = bucket(OBJECTS)
    said = refusal(env, f"s3://{name}/m{'/weights.bin' if step == 'look up' else ''}", tmp_path / "models")
    assert {cause for _, _, cause in REFUSED.values() if cause in said} == {message}, said
    assert f"cannot {step} s3://{name}/m" in said and proxy.url in said
    assert len(proxy.asked(step, "*m/weights.bin" if step != "list" else "")) <= 2


def test_a_bucket_elsewhere_is_said_to_be_where_it_is(bucket, proxy, env, tmp_path):
    proxy.script("list", MOVED)
    assert "eu-west-1" in refusal(env, f"s3://{bucket(OBJECTS)}/m", tmp_path)


def test_a_list_without_end_is_given_up(bucket, proxy, env, tmp_path):
    more = b"<IsTruncated>true</IsTruncated><NextContinuationToken>same</NextContinuationToken>"
    proxy.script("list", say(b"<ListBucketResult>" + more + b"</ListBucketResult>"))
    command = [servers.STOKER, "pull", f"s3://{bucket({})}/m", str(tmp_path)]
    env = {name: str(value) for name, value in env.items()}
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=3)
    except subprocess.TimeoutExpired:
        done = None
    assert done and done.returncode == 1 and "cannot list" in done.stderr


# What can happen to a model half-way, for the second request for its 20 MiB, and what must be said of it.
LONG = random.Random(8).randbytes(20 << 20)
HALF_WAY = {
    "replaced": (lambda s3, name: s3.put_object(Bucket=name, Key="m/long.bin", Body=LONG[::-1]), "load again"),
    "deleted": (lambda s3, name: s3.delete_object(Bucket=name, Key="m/long.bin"), "the object does not exist"),
}


@pytest.mark.parametrize(("change", "message"), HALF_WAY.values(), ids=HALF_WAY)
def test_what_changes_half_way_is_not_mixed(minio, bucket, proxy, env, tmp_path, change, message):
    name = bucket({"m/long.bin": LONG})
    proxy.script("read", faults.after(lambda: change(minio.client(), name)), skip=1, **ONCE)
    said = refusal(env, f"s3://{name}/m", tmp_path)
    assert f"cannot read s3://{name}/m/long.bin at" in said and message in said


def test_what_is_replaced_after_a_break_is_not_mixed(minio, bucket, proxy, env, tmp_path):
    name = bucket(OBJECTS)

    def replace():
        minio.client().put_object(Bucket=name, Key="m/weights.bin", Body=WEIGHTS[::-1])

    proxy.script("read", reset(700_000), **WEIGHTS_ONLY, **ONCE)
    proxy.script("read", faults.after(replace), **WEIGHTS_ONLY, **ONCE)
    assert "load again" in refusal(env, f"s3://{name}/m", tmp_path)
    assert_pulls(env, f"s3://{name}/m", tmp_path, {**TREE, "weights.bin": WEIGHTS[::-1]})


def test_credentials_that_expire_half_way(bucket, proxy, env, tmp_path):
    name = bucket({f"m/{number:03}": b"x" for number in range(100)})
    proxy.script("read", EXPIRED, skip=50)
    assert "(AWS_SESSION_TOKEN)" in refusal(env, f"s3://{name}/m", tmp_path)
    # Those in flight on the other threads may still be asked for, and no more.
    assert len(proxy.asked("read")) < 50 + 32


def checksum(polynomial, bits, content):
    """Reflected, all ones before and after, as base64: what S3 wants for CRC32C and CRC64NVME."""
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (polynomial if byte & 1 else 0)
        table.append(byte)
    ones = (1 << bits) - 1
    rest = ones
    for byte in content:
        rest = rest >> 8 ^ table[(rest ^ byte) & 0xFF]
    return b64encode((rest ^ ones).to_bytes(bits // 8)).decode()


SMALL = WEIGHTS[:300_000]
DEFAULT = {}
MD5_ONLY = {"request_checksum_calculation": "when_required"}
TWO_PARTS = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20)


def put(config=DEFAULT, **options):
    """Writes an object in one request; boto3 adds a CRC32 if it is told nothing else."""
    return lambda minio, at: minio.client(**config).put_object(**at, Body=SMALL, **options)


def put_parts(config=DEFAULT, **options):
    def upload(minio, at):
        file = io.BytesIO(LONG[: 9 << 20])
        minio.client(**config).upload_fileobj(file, at["Bucket"], at["Key"], ExtraArgs=options, Config=TWO_PARTS)

    return upload


WRITTEN = {
    "CRC32": put(),
    "CRC32C": put(ChecksumCRC32C=checksum(0x82F63B78, 32, SMALL)),
    "CRC64NVME": put(ChecksumCRC64NVME=checksum(0x9A6C9329AC4BC9B5, 64, SMALL)),
    "SHA1": put(ChecksumAlgorithm="SHA1"),
    "SHA256": put(ChecksumAlgorithm="SHA256"),
    "MD5 alone": put(MD5_ONLY),
    "parts with CRC32": put_parts(),
    "parts with SHA256": put_parts(ChecksumAlgorithm="SHA256"),
    "parts with MD5 alone": put_parts(MD5_ONLY),
}


@pytest.mark.parametrize("write", WRITTEN.values(), ids=WRITTEN)
def test_a_flipped_bit_is_noticed(minio, bucket, proxy, env, tmp_path, write):
    name = bucket({})
    write(minio, {"Bucket": name, "Key": "m/weights.bin"})
    proxy.script("read", flip(at=200_000))
    said = refusal(env, f"s3://{name}/m", tmp_path)
    assert "m/weights.bin: damaged" in said and "checksum" in said


@pytest.mark.parametrize("write", WRITTEN.values(), ids=WRITTEN)
def test_a_bit_that_flips_once_is_read_again(minio, bucket, proxy, env, tmp_path, write):
    name = bucket({})
    write(minio, {"Bucket": name, "Key": "m/weights.bin"})
    proxy.script("read", flip(at=200_000), **ONCE)
    done = pull_in_time(env, f"s3://{name}/m", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "weights.bin").read_bytes() in (SMALL, LONG[: 9 << 20])


def test_http_to_an_https_port(https, tmp_path):
    plain = https.env | {"AWS_ENDPOINT_URL": https.endpoint.replace("https:", "http:")}
    said = refusal(plain, "s3://models/m", tmp_path)
    assert "with the right scheme?" in said


def test_a_ca_bundle_of_somebody_else(https, tmp_path):
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "key"]
    command = ["openssl", "req", "-x509", *key, "-out", "other.pem", "-subj", "/CN=other"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=servers.PATIENCE)
    said = refusal(https.env | {"AWS_CA_BUNDLE": tmp_path / "other.pem"}, "s3://models/m", tmp_path / "models")
    assert "the server's certificate is not trusted" in said and "AWS_CA_BUNDLE" in said


@pytest.fixture
def mounted(tmp_path):
    """Gives a small file system with these options."""
    place = tmp_path / "mounted"
    place.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        return place

    yield mount
    subprocess.run(["umount", place], capture_output=True)


def test_a_full_disk(bucket, env, mounted):
    disk = mounted("size=512k")
    said = refusal(env, f"s3://{bucket(OBJECTS)}/m", disk / "models")
    assert "weights.bin: cannot be written: No space left on device" in said
    assert list((disk / "models").glob("*")) == [disk / "models/.stoker-pull"]


def test_a_full_cache_disk(bucket, env, mounted):
    disk = mounted("size=512k")
    uri = f"s3://{bucket(OBJECTS)}/m"
    said = failure("--model_name=m", f"--storage_uri={uri}", f"--cache_dir={disk}", env=env)
    assert "weights.bin: cannot be written: No space left on device" in said
    assert published(disk) == []


def test_a_disk_that_cannot_be_written(bucket, env, mounted):
    disk = mounted("ro")
    uri = f"s3://{bucket(OBJECTS)}/m"
    assert f"{disk}/models: cannot be made: Read-only file system" in refusal(env, uri, disk / "models")
    assert "cannot be written: Read-only file system" in refusal(env, uri, disk)
    said = failure("--model_name=m", f"--storage_uri={uri}", f"--cache_dir={disk}", env=env)
    assert said.startswith(f"cache directory {disk}: Read-only file system")


# MinIO has no such names, S3 does: the path asked for, and what a part of the list becomes.
HOSTILE = {
    "above": ("/m", b"m/down/", b"m/../"),
    "above, from below": ("/m", b"m/down/", b"m/a/../../"),
    "absolute": ("/m", b"m/down/", b"m//etc/"),
    "absolute, in the whole bucket": ("", b"m/down/", b"/etc/"),
    "here": ("/m", b"m/down/", b"m/./"),
}


@pytest.mark.parametrize(("path", "old", "new"), HOSTILE.values(), ids=HOSTILE)
def test_no_name_leads_out_of_the_directory(bucket, proxy, env, tmp_path, path, old, new):
    proxy.script("list", rewrite(old, new))
    said = refusal(env, f"s3://{bucket({'m/down/evil': b'x', 'm/good': b'x'})}{path}", tmp_path / "in/models")
    assert f'object "{new.decode()}evil" has a name that is no path below the model directory' in said
    assert files(tmp_path) == {}


def test_a_name_that_is_a_file_and_a_folder(bucket, proxy, env, tmp_path):
    """S3 has no folders, and so no objection."""
    proxy.script("list", rewrite(b"<Key>m/b</Key>", b"<Key>m/a/b</Key>"))
    proxy.script("read", say(b"x"))
    said = refusal(env, f"s3://{bucket({'m/a': b'x', 'm/b': b'x'})}/m", tmp_path)
    assert "/a" in said and "cannot be written" in said


def test_ten_thousand_objects(tmp_path):
    tree = {f"{number % 100:02}/{number:05}": b"%d" % number for number in range(10_000)}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path, content in tree.items():
            entry = tarfile.TarInfo(f"m/{path}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    # MinIO waits for the disk with each object, which memory does not.
    with servers.minio(folder="/dev/shm") as minio:
        minio.client().create_bucket(Bucket="many")
        unpack = {"snowball-auto-extract": "true"}  # a word of MinIO's
        minio.client().put_object(Bucket="many", Key="all.tar", Body=packed.getvalue(), Metadata=unpack)
        done = pull(minio.env, "s3://many/m", tmp_path)
    assert done.returncode == 0, done.stderr
    assert files(tmp_path) == tree


def published(cache):
    """The models of a cache that a server would take: not those on their way, which the next one goes on with."""
    return [path for path in cache.iterdir() if path.suffix not in (".partial", ".lock")]


def assert_serves_in_the_end(proxy, env, args, cache):
    """Once nothing is broken any more."""
    proxy.rules.clear()
    with servers.stoker(*args, env=env) as server:
        assert_serves_iris(server)
        assert cached_files(cache) == TREE


BROKEN = {
    "truncated": (truncate(100), "the server closed the connection"),
    "stalled": (stall(100), "no answer in time (S3_READ_TIMEOUT)"),
    "replaced": (refuse(412, "PreconditionFailed"), "load again"),
    "expired": (EXPIRED, "(AWS_SESSION_TOKEN)"),
}


@pytest.mark.parametrize(("fault", "message"), BROKEN.values(), ids=BROKEN)
def test_no_server_starts_with_a_part_of_a_model(bucket, proxy, env, tmp_path, fault, message):
    """Whatever is missing, even if the model could be loaded without it; and once it is there, the server starts."""
    proxy.script("read", fault, **WEIGHTS_ONLY)
    args = ["--model_name=iris", f"--storage_uri=s3://{bucket(OBJECTS)}/m", f"--cache_dir={tmp_path}"]
    assert message in failure(*args, env=env)
    assert published(tmp_path) == []
    assert_serves_in_the_end(proxy, env, args, tmp_path)


def test_those_who_wait_for_a_stalled_store_do_not_wait_one_after_another(bucket, proxy, env, tmp_path):
    """Each would have to wait as long as the first one, after it."""
    proxy.script("read", stall(100), **WEIGHTS_ONLY)
    env = env | {"S3_READ_TIMEOUT": 11, "S3_MAX_ATTEMPTS": 1}
    args = ["--model_name=iris", f"--storage_uri=s3://{bucket(OBJECTS)}/m", f"--cache_dir={tmp_path}"]
    begun = time.monotonic()
    with ExitStack() as stack:
        waiting = [stack.enter_context(servers.stoker(*args, env=env, ready=False)) for _ in range(4)]
        assert [server.wait() for server in waiting] == [1] * 4
        assert time.monotonic() - begun < 20
        told = [server for server in waiting if "told by the process that was bringing the model" in server.log()]
        assert len(told) == 3 and all("no answer in time (S3_READ_TIMEOUT)" in server.log() for server in waiting)


def test_no_server_starts_with_a_flipped_bit(bucket, proxy, env, tmp_path):
    proxy.script("read", flip(at=500_000), **WEIGHTS_ONLY)
    args = ["--model_name=iris", f"--storage_uri=s3://{bucket(OBJECTS)}/m", f"--cache_dir={tmp_path}"]
    with servers.stoker(*args, env=env, ready=False) as server:
        servers.eventually(lambda: server.ended() or "model ready" in server.log(), "an end, or a ready server")
        assert server.ended() and "checksum" in server.log()
    assert published(tmp_path) == []
    assert_serves_in_the_end(proxy, env, args, tmp_path)


def test_a_failed_pull_leaves_nothing_half_written(bucket, proxy, env, tmp_path):
    proxy.script("read", truncate(100), **WEIGHTS_ONLY)
    refusal(env, f"s3://{bucket(OBJECTS)}/m", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".stoker-pull"], "for the next one to go on with"


KILLS = 15
# Time enough to be killed in: of one part and of several.
LARGE = {"long.bin": LONG, "longer.bin": LONG + WEIGHTS, "weights.bin": WEIGHTS, "model.onnx": IRIS}


def kill_at_random(start, seconds):
    """Starts something again and again, for some of the time that it takes."""
    instants = random.Random(9)
    survivors = 0
    for _ in range(KILLS):
        process = start()
        try:
            process.child.wait(instants.uniform(0, seconds))
            survivors += 1
        except subprocess.TimeoutExpired:
            process.kill()
    assert survivors < KILLS / 2


# Slow enough that most of the time goes into bytes that arrive.
SLOWLY = slow(40e6)


def test_a_pull_killed_at_any_instant_can_be_repeated(minio, bucket, proxy, env, tmp_path):
    proxy.script("read", SLOWLY)
    uri = f"s3://{bucket({f'm/{path}': content for path, content in LARGE.items()})}/m"
    begun = time.monotonic()
    assert_pulls(env, uri, tmp_path / "first", LARGE)
    seconds = time.monotonic() - begun
    target = tmp_path / "models"
    kill_at_random(lambda: servers.Process([servers.STOKER, "pull", uri, target], env), seconds)
    assert_pulls(minio.env, uri, target, LARGE)


def test_a_server_killed_at_any_instant_can_be_started_again(minio, bucket, proxy, env, tmp_path):
    proxy.script("read", SLOWLY)
    uri = f"s3://{bucket({f'm/{path}': content for path, content in LARGE.items()})}/m"
    args = ["--model_name=iris", f"--storage_uri={uri}"]
    begun = time.monotonic()
    with servers.stoker(*args, f"--cache_dir={tmp_path / 'first'}", env=env):
        seconds = time.monotonic() - begun
    args.append(f"--cache_dir={tmp_path / 'cache'}")
    kill_at_random(lambda: servers.Stoker(args, env), seconds)
    with servers.stoker(*args, env=minio.env) as server:
        assert_serves_iris(server)
        assert cached_files(tmp_path / "cache") == LARGE


def test_a_killed_download_goes_on(bucket, proxy, env, tmp_path):
    """All parts but one are there, and written down, when the server is killed."""
    parts = -(-len(LONG) // (1 << 20))  # of so little, a megabyte each
    args = ["--model_name=iris", f"--cache_dir={tmp_path}"]
    args.append(f"--storage_uri=s3://{bucket({'m/model.onnx': IRIS, 'm/long.bin': LONG})}/m")
    proxy.script("read", silence(), key="m/long.bin", skip=parts - 1)

    def written_down():
        journals = [path.read_bytes() for path in tmp_path.glob("*.partial/parts")]
        return journals and len(journals[0].partition(b"\n")[2]) == (parts - 1) * 4

    with servers.stoker(*args, env=env | {"S3_READ_TIMEOUT": 30}, ready=False):
        servers.eventually(written_down, "all parts but one in the journal")
    proxy.rules.clear()
    proxy.seen.clear()
    with servers.stoker(*args, env=env) as server:
        assert_serves_iris(server)
        assert cached_files(tmp_path) == {"model.onnx": IRIS, "long.bin": LONG}
    assert len(proxy.asked("read", "m/long.bin")) == 1
