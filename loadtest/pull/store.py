"""MinIO for the benchmarks of pulling: a process of its own on a free port of the loopback interface."""

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path

import boto3
from botocore.config import Config

KEYS = {"aws_access_key_id": "stoker-bench", "aws_secret_access_key": "only-for-loopback"}


def free_port():
    return free_ports(1)[0]


def free_ports(count):
    """Different ones: asked for one after the other, the system may give the same port twice."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@contextmanager
def workshop(path):
    """An empty folder that goes again."""
    work = Path(path)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def minio(program, work):
    """Gives the endpoint; what is stored lies in a folder of `work`."""
    address = f"127.0.0.1:{free_port()}"
    env = {"HOME": str(work), "MINIO_ROOT_USER": KEYS["aws_access_key_id"], "MINIO_BROWSER": "off"}
    env |= {"MINIO_ROOT_PASSWORD": KEYS["aws_secret_access_key"], "MINIO_UPDATE": "off"}
    command = [program, "server", "--quiet", "--address", address, str(work / "store")]
    server = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait(f"http://{address}/minio/health/ready")
        yield f"http://{address}"
    finally:
        server.kill()
        server.wait()


@contextmanager
def network(loadtest, delay_ms, mbytes_per_second, endpoint):
    """The endpoint behind a network that adds so much to each request and caps each connection, or MinIO's own."""
    if not mbytes_per_second:
        yield endpoint
        return
    shape = ["--delay-ms", str(delay_ms), "--mbytes-per-second", str(mbytes_per_second)]
    upstream = endpoint.removeprefix("http://")
    command = [loadtest, "slow-proxy", "--listen", "127.0.0.1:0", "--upstream", upstream, *shape]
    proxy = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield f"http://{proxy.stdout.readline().split()[1]}"
    finally:
        proxy.kill()
        proxy.wait()


def wait(url):
    for _ in range(200):
        try:
            return urllib.request.urlopen(url, timeout=1).close()
        except OSError:
            time.sleep(0.05)
    sys.exit("MinIO is not ready")


def client(endpoint):
    return boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", config=Config(proxies={}), **KEYS)
