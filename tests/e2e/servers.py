"""Real processes for the tests: stoker and MinIO on ports of their own, awaited, and quoted when a test fails."""

import http.client
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

ROOT = Path(__file__).resolve().parents[2]
STOKER = ROOT / "target/release/stoker"
MINIO = ROOT / "target/tools/bin/minio"

# Longest that any single thing may take; a server that needs more hangs.
PATIENCE = 20


def eventually(condition, what, patience=PATIENCE):
    """Waits until the condition gives something true, and gives that."""
    deadline = time.monotonic() + patience
    while not (result := condition()):
        assert time.monotonic() < deadline, f"waited {patience} s for {what}"
        time.sleep(0.01)
    return result


def free_port():
    """A port that nobody listens on, for a server that must be told one, or for none at all."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self):
        return json.loads(self.body)


class Process:
    """A child with a log. It inherits no environment, so that nothing of the developer's shell decides a test."""

    # What conftest.py shows beside a failure.
    started: list["Process"] = []

    def __init__(self, command, env):
        self.name = Path(command[0]).name
        self.log_file = tempfile.NamedTemporaryFile(prefix=f"{self.name}-", suffix=".log")
        self.child = subprocess.Popen(
            [str(part) for part in command],
            env={name: str(value) for name, value in env.items()},
            stdin=subprocess.DEVNULL,
            stdout=self.log_file,
            stderr=subprocess.STDOUT,
        )
        self.old_log = 0  # characters that were there before this test
        Process.started.append(self)

    def log(self):
        return Path(self.log_file.name).read_text(errors="replace")

    def ended(self):
        return self.child.poll() is not None

    def wait(self):
        """The exit code."""
        return self.child.wait(PATIENCE)

    def kill(self):
        """Kills it and what it has started, as MLflow starts workers that would outlive it."""
        for pid in reversed(family(self.child.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.child.wait()


def family(pid):
    """A process and all below it."""
    try:
        children = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return [pid]
    return [pid, *(member for child in sum(children, []) for member in family(int(child)))]


class Stoker(Process):
    """`stoker serve` on free ports of the loopback interface."""

    def __init__(self, args, env):
        # Given as twins of the flags, so that a test can still set the flags.
        env = {"STOKER_HOST": "127.0.0.1", "STOKER_HTTP_PORT": 0, **env}
        super().__init__([STOKER, "serve", *args], env)

    def events(self):
        """The log's JSON lines."""
        whole = [line for line in self.log().splitlines(keepends=True) if line.endswith("\n")]  # the last may be on its way
        return [json.loads(line) for line in whole if line.startswith("{")]

    def event(self, message):
        """The first line with this message, awaited."""

        def find():
            found = next((event for event in self.events() if event["message"] == message), None)
            assert found or not self.ended(), f"stoker ended before it said: {message}"
            return found

        return eventually(find, f'"{message}" in the log')

    @property
    def address(self):
        return self.event("listening")["http"]

    @property
    def url(self):
        return f"http://{self.address}"

    def request(self, method, path, body=None, headers=None):
        """One request on a connection of its own; a body that is no bytes goes as JSON."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        connection = http.client.HTTPConnection(self.address, timeout=PATIENCE)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, path, headers=None):
        return self.request("GET", path, headers=headers)

    def post(self, path, body, headers=None):
        return self.request("POST", path, body, headers)

    def is_ready(self):
        assert not self.ended(), "stoker ended before it was ready"
        return self.get("/v2/health/ready").status == 200


@contextmanager
def stoker(*args, env=None, ready=True):
    """A server for the length of a `with`, by default once it is ready."""
    server = Stoker(args, env or {})
    try:
        if ready:
            eventually(server.is_ready, "a ready server")
        yield server
    finally:
        server.kill()


def failure(*args, env=None):
    """The reason why this server does not start: the one line that it logs and leaves for Kubernetes."""
    with tempfile.NamedTemporaryFile(prefix="termination-") as left:
        with stoker(*args, f"--termination_log={left.name}", env=env, ready=False) as server:
            assert server.wait() == 1
        reason = left.read().decode()
        assert reason.endswith("\n") and reason.count("\n") == 1, f"not one line: {reason!r}"
        logged = [json.loads(line) for line in server.log().splitlines()]
        assert logged[-1]["message"] == "cannot serve" and logged[-1]["error"] == reason.rstrip()
        return reason.strip()


class Minio(Process):
    """A MinIO server with an empty store."""

    ACCESS_KEY, SECRET_KEY = "stoker-tests", "only-for-loopback"

    def __init__(self, store, certs=None, env=None):
        self.port = free_port()
        self.endpoint = f"{'https' if certs else 'http'}://127.0.0.1:{self.port}"
        options = ["--certs-dir", certs] if certs else []
        env = {
            "HOME": store,
            "MINIO_ROOT_USER": self.ACCESS_KEY,
            "MINIO_ROOT_PASSWORD": self.SECRET_KEY,
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
            **(env or {}),
        }
        super().__init__([MINIO, "server", "--quiet", "--address", f"127.0.0.1:{self.port}", *options, store], env)

    @property
    def env(self):
        """What KServe puts into a predictor's environment for this server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": self.SECRET_KEY,
            "S3_MAX_ATTEMPTS": 1,  # repeating what must fail only costs time
        }

    def client(self, verify=None, **config):
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.ACCESS_KEY,
            aws_secret_access_key=self.SECRET_KEY,
            region_name="us-east-1",
            verify=verify,
            config=Config(proxies={}, retries={"total_max_attempts": 1}, **config),
        )

    def is_ready(self):
        assert not self.ended(), "MinIO ended before it was ready"
        try:
            # Its health page is there before its store is. Whether it is trusted is not asked.
            with warnings.catch_warnings(action="ignore"):
                return self.client(verify=False).list_buckets() is not None
        except (BotoCoreError, ClientError):
            return False


@contextmanager
def minio(certs=None, folder=None, env=None):
    """A MinIO server for the length of a `with`, once it is ready; its store is below the folder."""
    with tempfile.TemporaryDirectory(prefix="minio-", dir=folder) as store:
        server = Minio(store, certs, env)
        try:
            eventually(server.is_ready, "a ready MinIO")
            yield server
        finally:
            server.kill()


def fill(s3, bucket, objects):
    s3.create_bucket(Bucket=bucket)
    for key, content in objects.items():
        s3.put_object(Bucket=bucket, Key=key, Body=content)
