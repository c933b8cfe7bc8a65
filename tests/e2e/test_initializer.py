"""`stoker pull` beside KServe's own storage initializer: the same arguments and variables leave the same files."""

import json
import subprocess

import pytest

import servers
from test_pull import pull
from test_s3 import IRIS, LAYOUTS

PYTHON = servers.ROOT / "target/tools/storage-venv/bin/python"
# As KServe's image has it, in scripts/initializer-entrypoint; with further environments, once in each.
ENTRYPOINT = """
import json, os, sys
from kserve_storage import Storage
environments, *args = sys.argv[1:]
for number, environment in enumerate(json.loads(environments)):
    os.environ.update(environment)
    Storage.download_files(args[0::2], [path.format(number) for path in args[1::2]])
"""


def initialize(env, *args, environments=({},)):
    command = [PYTHON, "-c", ENTRYPOINT, json.dumps(environments), *map(str, args)]
    # Starting workers takes it longer than all that they have to do here.
    env = {"S3_MAX_FILE_CONCURRENCY": "1"} | {name: str(value) for name, value in env.items()}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=servers.PATIENCE)


def tree(folder):
    """All that is there: modes, and the content of files or where links lead. Links are not followed."""

    def content(path):
        return path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None

    found = {str(path.relative_to(folder)): path for path in folder.rglob("*")}
    return {name: (oct(path.lstat().st_mode), content(path)) for name, path in found.items()}


class Below(str):
    """A path below the folder of whoever it is given to."""


MODELS = Below("models")


def both(tmp_path, env, *args):
    """The trees that KServe's and ours leave, each below a folder of its own."""
    trees = []
    for name, run in [("kserve", initialize), ("stoker", pull)]:
        folder = tmp_path / name
        done = run(env, *(folder / arg if isinstance(arg, Below) else arg for arg in args))
        assert done.returncode == 0, done.stderr
        trees.append(tree(folder))
    return trees


def named(files):
    """What of a tree a test is about: the names and contents of files."""
    return {name: content for name, (_, content) in files.items() if content is not None}


# Where they differ on purpose: what KServe's leaves.
ON_PURPOSE = {
    # Its prefix ends in the middle of a name.
    "a neighbour": {"models/a.onnx": IRIS, "models/2/b.onnx": b"other", "models/.onnx": b"other"},
    # It takes empty files for markers of directories.
    "empty objects": {"models/model.onnx": IRIS},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(minio, bucket, tmp_path, layout):
    objects, path, expected = LAYOUTS[layout]
    theirs, ours = both(tmp_path, minio.env, f"s3://{bucket(objects)}/{path}", MODELS)
    assert named(ours) == {f"models/{name}": content for name, content in expected.items()}
    if layout in ON_PURPOSE:
        assert named(theirs) == ON_PURPOSE[layout]
    else:
        assert theirs == ours


# Objects without an own name, so that one pull compares many names.
NAMES = ["plain", "a b", " lead", "trail ", "a+b", "a%2Fb", "%", "&amp;", "<>", "'\"", "*?[]", "\\", "~;=#:@"]
NAMES += ["ü", "u\u0308", "☕", "a\x01b", "a\x7fb", "a\tb", "a\nb", "a\rb"]


def test_names(minio, bucket, tmp_path):
    objects = {f"m/{number}/{name}": b"x" for number, name in enumerate(NAMES)}
    theirs, ours = both(tmp_path, minio.env, f"s3://{bucket(objects)}/m", MODELS)
    assert theirs == ours and len(named(ours)) == len(NAMES)


FILES = ["a.json", "b.json", "c.bin", "deep/a.json", "deep/er/d.bin", "deep/x.JSON", "[ab].json", "config.pbtxt", "5"]
PATTERNS = {
    "a list": {"allow": '["*.json", "c.bin"]'},
    "by commas": {"allow": "*.json, c.bin"},
    "ignored": {"ignore": "*.json"},
    "both": {"allow": "*.json", "ignore": '["deep/*"]'},
    "a folder": {"allow": "deep/*"},
    "a folder's name alone": {"allow": "deep,c.bin"},
    "any letter": {"allow": "?.json"},
    "a class": {"allow": "[ab].json"},
    "not a class": {"allow": "[!a].json"},
    "a range": {"allow": "[a-b]*"},
    "an open bracket": {"allow": "[ab,c.bin"},
    "brackets as such": {"allow": "[[]ab].json"},
    "no list after all": {"allow": '["*.json",c.bin'},
    "a string": {"allow": '"*.json"'},
    "a number": {"allow": "5"},
    "numbers": {"allow": "[5]"},
    "nothing": {"allow": "", "ignore": " "},
    "an empty list": {"allow": "[]"},
    "empty ones": {"allow": ", *.json ,"},
    "letters of another case": {"allow": "*.JSON"},
}


@pytest.fixture(scope="module")
def filled(minio):
    """A URI of some files for all patterns."""
    minio.client().create_bucket(Bucket="patterns")
    for name in FILES:
        minio.client().put_object(Bucket="patterns", Key=f"m/{name}", Body=name.encode())
    return "s3://patterns/m"


def pattern_env(allow="", ignore=""):
    return {"STORAGE_ALLOW_PATTERNS": allow, "STORAGE_IGNORE_PATTERNS": ignore}


@pytest.fixture(scope="module")
def filtered(minio, filled, tmp_path_factory):
    """What KServe's takes for each of the patterns. In one process: most of the time of any goes into its imports."""
    folder = tmp_path_factory.mktemp("filtered")
    environments = [pattern_env(**patterns) for patterns in PATTERNS.values()]
    done = initialize(minio.env, filled, folder / "{}", environments=environments)
    assert done.returncode == 0, done.stderr
    return {name: tree(folder / str(number)) for number, name in enumerate(PATTERNS)}


@pytest.mark.parametrize("case", PATTERNS)
def test_patterns(minio, filled, filtered, tmp_path, case):
    done = pull(minio.env | pattern_env(**PATTERNS[case]), filled, tmp_path)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path) == filtered[case] != {}


def test_patterns_are_not_for_one_object(minio, filled, tmp_path):
    env = minio.env | pattern_env(allow="*.bin")
    theirs, ours = both(tmp_path, env, f"{filled}/deep/a.json", MODELS)
    assert theirs == ours and list(named(ours)) == ["models/a.json"]


def test_several_sources(minio, bucket, tmp_path):
    name = bucket({"a/x": b"a", "a/deep/y": b"a", "b/x": b"b", "b/z": b"b"})
    pairs = [f"s3://{name}/a", Below("one"), f"s3://{name}/b/", Below("one/two"), f"s3://{name}/b", Below("one")]
    theirs, ours = both(tmp_path, minio.env, *pairs)
    assert theirs == ours
    assert named(ours)["one/x"] == b"b"


def test_over_what_is_there(minio, bucket, tmp_path):
    for name in ("kserve", "stoker"):
        (tmp_path / name / "models").mkdir(parents=True)
        (tmp_path / name / "models/model.onnx").write_bytes(b"an older and longer model" * 1000)
        (tmp_path / name / "models/other").write_bytes(b"of somebody else")
    theirs, ours = both(tmp_path, minio.env, f"s3://{bucket({'m/model.onnx': IRIS})}/m", MODELS)
    assert theirs == ours
    assert named(ours) == {"models/model.onnx": IRIS, "models/other": b"of somebody else"}


LOCAL = {
    "a folder": ("file://{}/pvc", {}),
    "a path": ("{}/pvc", {}),
    "one file": ("{}/pvc/a.json", {}),
    "some of it": ("{}/pvc", {"STORAGE_ALLOW_PATTERNS": "*.json"}),
    "a folder in it": ("{}/pvc", {"STORAGE_IGNORE_PATTERNS": "*.json"}),
}


@pytest.mark.parametrize(("uri", "env"), LOCAL.values(), ids=LOCAL)
def test_local_directories(tmp_path, uri, env):
    (tmp_path / "pvc/deep").mkdir(parents=True)
    for name in ("a.json", "b.json", "c.bin", "deep/d.bin", ".hidden"):
        (tmp_path / "pvc" / name).write_bytes(b"x")
    theirs, ours = both(tmp_path, env, uri.format(tmp_path), MODELS)
    assert theirs == ours and len(ours) > 1


# The forms that settings come in: what replaces MinIO's own environment.
SPEC = {"type": "s3", "region": "us-east-1", "bucket": "unused"}
SETTINGS = {
    "a secret": lambda minio: minio.env,
    "a secret with the older endpoint beside": lambda minio: minio.env
    | {"S3_ENDPOINT": minio.endpoint.removeprefix("http://"), "S3_USE_HTTPS": "0", "S3_VERIFY_SSL": "0"},
    "all of a secret": lambda minio: minio.env
    | {"AWS_DEFAULT_REGION": "us-east-1", "S3_USER_VIRTUAL_BUCKET": "false", "S3_USE_ACCELERATE": "false"}
    | {"awsAnonymousCredential": "false", "S3_CONNECT_TIMEOUT": "5", "S3_READ_TIMEOUT": "5"},
    "a storage spec": lambda minio: {"STORAGE_CONFIG": spec(minio)},
    "a storage spec with parameters": lambda minio: {
        "STORAGE_CONFIG": spec(minio, secret_access_key="wrong", type="hdfs"),
        "STORAGE_OVERRIDE_CONFIG": json.dumps({"secret_access_key": minio.SECRET_KEY, "type": "s3"}),
    },
    "a storage spec over a secret": lambda minio: {
        "AWS_SECRET_ACCESS_KEY": "wrong",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "STORAGE_CONFIG": spec(minio),
    },
    "a storage spec of another kind": lambda minio: minio.env
    | {"STORAGE_CONFIG": json.dumps({"type": "gs", "access_key_id": "not for S3"})},
}


def spec(minio, **changes):
    own = {"endpoint_url": minio.endpoint, "access_key_id": minio.ACCESS_KEY, "secret_access_key": minio.SECRET_KEY}
    return json.dumps(SPEC | own | changes)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_settings(minio, filled, tmp_path, settings):
    theirs, ours = both(tmp_path, settings(minio), filled, MODELS)
    assert theirs == ours


ANONYMOUS = {
    "a variable": lambda minio: {"AWS_ENDPOINT_URL": minio.endpoint, "awsAnonymousCredential": "True"},
    "a storage spec": lambda minio: {
        "STORAGE_CONFIG": json.dumps({"type": "s3", "endpoint_url": minio.endpoint, "anonymous": "true"})
    },
}


@pytest.mark.parametrize("settings", ANONYMOUS.values(), ids=ANONYMOUS)
def test_a_public_bucket(minio, bucket, tmp_path, settings):
    name = bucket({"m/model.onnx": IRIS})
    statement = {"Effect": "Allow", "Principal": "*", "Action": ["s3:ListBucket", "s3:GetObject"]}
    statement["Resource"] = [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"]
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    minio.client().put_bucket_policy(Bucket=name, Policy=policy)
    theirs, ours = both(tmp_path, settings(minio), f"s3://{name}/m", MODELS)
    assert theirs == ours


TRUST = {
    "a bundle of one's own": lambda ca: {"AWS_CA_BUNDLE": ca},
    "the cluster's": lambda ca: {
        "CA_BUNDLE_CONFIGMAP_NAME": "ca",
        "CA_BUNDLE_VOLUME_MOUNT_POINT": ca.parent / "mounted",
    },
    "one's own before the cluster's": lambda ca: {
        "AWS_CA_BUNDLE": ca,
        "CA_BUNDLE_CONFIGMAP_NAME": "ca",
        "CA_BUNDLE_VOLUME_MOUNT_POINT": "/nowhere",
    },
    "none": lambda ca: {"S3_VERIFY_SSL": "0"},
    "none, in a word": lambda ca: {"S3_VERIFY_SSL": "False"},
}


@pytest.mark.parametrize("trust", TRUST.values(), ids=TRUST)
def test_certificates(https, certificates, tmp_path, trust):
    mounted = certificates / "mounted"
    mounted.mkdir(exist_ok=True)
    (mounted / "cabundle.crt").write_bytes((certificates / "ca.pem").read_bytes())
    theirs, ours = both(tmp_path, https.env | trust(certificates / "ca.pem"), "s3://models/m", MODELS)
    assert theirs == ours


# What neither brings. Ours says it in the last line, which is tested elsewhere.
REFUSED = {
    "no such bucket": ({}, "s3://no-such-bucket/m"),
    "nothing there": ({}, "s3://patterns/nothing"),
    "nothing wanted": ({"STORAGE_ALLOW_PATTERNS": "*.none"}, "s3://patterns/m"),
    "a wrong secret": ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "s3://patterns/m"),
    "a spec that is none": ({"STORAGE_CONFIG": "{"}, "s3://patterns/m"),
    "an unknown scheme": ({}, "ftp://patterns/m"),
    "no such path": ({}, "/nowhere/m"),
}


@pytest.mark.parametrize(("env", "uri"), REFUSED.values(), ids=REFUSED)
def test_what_neither_brings(minio, filled, tmp_path, env, uri):
    for name, run in [("kserve", initialize), ("stoker", pull)]:
        done = run(minio.env | env, uri, tmp_path / name)
        assert (name, done.returncode) == (name, 1)
        assert tree(tmp_path / name) == {}, name
