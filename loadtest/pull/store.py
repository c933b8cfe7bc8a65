"""MinIO for the benchmarks of pulling: a process of its own on a free port of the loopback interface."""

import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

import boto3
from botocore.config import Config

KEYS = {"aws_access_key_id": "stoker-bench", "aws_secret_access_key": "only-for-loopback"}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


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


def wait(url):
    for _ in range(200):
        try:
            return urllib.request.urlopen(url, timeout=1).close()
        except OSError:
            time.sleep(0.05)
    sys.exit("MinIO is not ready")


def client(endpoint):
    return boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", config=Config(proxies={}), **KEYS)
