"""Models that are one archive in a real S3 server: `stoker pull` and `stoker serve` leave what KServe leaves."""

import io
import random
import struct
import tarfile
import zipfile
from functools import cache

import pytest

import servers
from test_initializer import MODELS, both
from test_pull import files, pull
from test_s3 import IRIS, assert_serves_iris, cached_files

MODEL = {
    "1/model.onnx": IRIS,
    "1/weights.bin": random.Random(4).randbytes(5 << 20),
    "empty": b"",
    "naïve ☕/a b+c%25.txt": b"x",
    f"{'folder/' * 20}{'long' * 30}.bin": b"long",
}


def special(name, kind, target=""):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def tar(mode="w", form=tarfile.GNU_FORMAT, content=MODEL, extra=()):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode, format=form) as archive:
        archive.addfile(special("./", tarfile.DIRTYPE))
        for name, data in content.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        for entry in extra:
            archive.addfile(entry)
    return packed.getvalue()


def zstd(data):
    """One frame of blocks that are not compressed: Python has no zstd before 3.14."""
    step = 128 << 10
    blocks = [data[at : at + step] for at in range(0, len(data), step)]
    last = len(blocks) - 1
    headers = [(len(block) << 3 | (number == last)).to_bytes(3, "little") for number, block in enumerate(blocks)]
    return b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", len(data)) + b"".join(map(bytes.__add__, headers, blocks))


def zipped(method, content=MODEL, zip64=False):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        archive.mkdir("1")
        for name, data in content.items():
            with archive.open(name, "w", force_zip64=zip64) as entry:
                entry.write(data)
    return packed.getvalue()


ARCHIVES = {
    "model.tar": tar,
    "pax.tar": lambda: tar(form=tarfile.PAX_FORMAT),
    "model.tar.gz": lambda: tar("w:gz"),
    "model.tgz": lambda: tar("w:gz", tarfile.PAX_FORMAT),
    "model.tar.bz2": lambda: tar("w:bz2"),
    "model.tar.xz": lambda: tar("w:xz"),
    "in fact gzip.tar": lambda: tar("w:gz"),
    "model.zip": lambda: zipped(zipfile.ZIP_STORED),
    "deflated.zip": lambda: zipped(zipfile.ZIP_DEFLATED),
    "bzip2.zip": lambda: zipped(zipfile.ZIP_BZIP2),
    "lzma.zip": lambda: zipped(zipfile.ZIP_LZMA),
    "zip64.zip": lambda: zipped(zipfile.ZIP_DEFLATED, zip64=True),
    "model.tar.zst": lambda: zstd(tar()),
}
archive = cache(lambda name: ARCHIVES[name]())


@pytest.mark.parametrize("name", ARCHIVES)
def test_pulled(minio, bucket, tmp_path, name):
    place = bucket({f"dir/{name}": archive(name)})
    for number, path in enumerate(["dir", f"dir/{name}"]):
        done = pull(minio.env, f"s3://{place}/{path}", tmp_path / str(number))
        assert done.returncode == 0, done.stderr
        assert files(tmp_path / str(number)) == MODEL


@pytest.mark.parametrize("name", ARCHIVES)
def test_served_and_not_fetched_again(minio, bucket, tmp_path, name):
    uri = f"s3://{bucket({name: archive(name)})}/{name}"
    args = ["--model_name=iris", f"--storage_uri={uri}", f"--cache_dir={tmp_path}"]
    for cached in [False, True]:
        with servers.stoker(*args, env=minio.env) as server:
            assert_serves_iris(server)
            assert server.event("model fetched")["cached"] == cached
    assert cached_files(tmp_path) == MODEL


@pytest.mark.parametrize("name", [name for name in ARCHIVES if not name.endswith(".zst")])
def test_as_kserve_leaves_it(minio, bucket, tmp_path, name):
    place = bucket({f"dir/{name}": archive(name)})
    theirs, ours = both(tmp_path, minio.env, f"s3://{place}/dir", MODELS)
    assert theirs == ours


@pytest.mark.parametrize("uri", ["{}/pvc", "{}/pvc/model.tar.gz", "file://{}/pvc/model.tar.gz"])
def test_on_a_volume(tmp_path, uri):
    """Unpacked as KServe unpacks it, and served."""
    (tmp_path / "pvc").mkdir()
    (tmp_path / "pvc/model.tar.gz").write_bytes(tar("w:gz", content=GOOD))
    theirs, ours = both(tmp_path, {}, uri.format(tmp_path), MODELS)
    assert theirs == ours and "models/1/model.onnx" in ours
    with servers.stoker("--model_name=iris", f"--model_dir={tmp_path}/pvc", f"--cache_dir={tmp_path}/cache") as server:
        assert_serves_iris(server)


GOOD = {"1/model.onnx": IRIS}
CUT = tar("w:gz", content=GOOD)[:-9]
DAMAGED = bytearray(tar("w:gz", content=GOOD))
DAMAGED[-8] ^= 1
REFUSED = {
    "above": (tar(content=GOOD | {"../../up": b"x"}), 'entry "./../../up": the name has ".." in it'),
    "absolute": (tar(content=GOOD, extra=[special("/up", tarfile.REGTYPE)]), 'entry "/up": the name is absolute'),
    "symlink": (tar(content=GOOD, extra=[special("a", tarfile.SYMTYPE, "/etc")]), 'entry "a": it is a link'),
    "hardlink": (tar(content=GOOD, extra=[special("a", tarfile.LNKTYPE, "1/m")]), 'entry "a": it is a link'),
    "device": (tar(content=GOOD, extra=[special("a", tarfile.CHRTYPE)]), 'entry "a": it is a device'),
    "twice": (tar(content=GOOD, extra=[special("1/model.onnx", tarfile.REGTYPE)]), "there is another entry"),
    "a zip's way up": (zipped(zipfile.ZIP_STORED, GOOD | {"../up": b"x"}), 'entry "../up": the name has ".." in it'),
    "cut": (CUT, "the archive ends too early"),
    "damaged": (bytes(DAMAGED), "the archive is damaged"),
    "no archive": (b"<html>" * 1000, "what it has is no tar"),
    "a bomb": (tar("w:gz", content=GOOD | {"zeros": bytes(60 << 20)}), "set STORAGE_MAX_UNPACKED_BYTES"),
}


@pytest.mark.parametrize(("content", "reason"), REFUSED.values(), ids=REFUSED)
def test_refused(minio, bucket, tmp_path, content, reason):
    uri = f"s3://{bucket({'dir/model.tar.gz': content})}/dir"
    env = minio.env | {"STORAGE_MAX_UNPACKED_BYTES": 50 << 20}
    done = pull(env, uri, tmp_path / "pulled")
    assert done.returncode == 1
    assert reason in done.stderr.splitlines()[-1]
    args = ["--model_name=iris", f"--storage_uri={uri}", f"--cache_dir={tmp_path / 'cache'}"]
    assert reason in servers.failure(*args, env=env)
    assert files(tmp_path) == {}, "something is left"


def test_only_what_is_alone_is_unpacked(minio, bucket, tmp_path):
    packed = tar("w:gz", content=GOOD)
    place = bucket({"m/model.tgz": packed, "m/model.onnx": IRIS})
    assert pull(minio.env, f"s3://{place}/m", tmp_path / "both").returncode == 0
    assert files(tmp_path / "both") == {"model.tgz": packed, "model.onnx": IRIS}
    # As with KServe, alone among what is wanted.
    wanted = minio.env | {"STORAGE_ALLOW_PATTERNS": "*.tgz"}
    assert pull(wanted, f"s3://{place}/m", tmp_path / "one").returncode == 0
    assert files(tmp_path / "one") == GOOD
