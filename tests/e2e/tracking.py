"""A real MLflow server, and models that a real client logs to it."""

import json
import subprocess
import urllib.request
from contextlib import contextmanager

import servers
from servers import ROOT, Process, eventually, free_port

PYTHON = ROOT / "target/tools/tabular-venv/bin/python"
BUCKET = "mlflow-artifacts"


class Mlflow(Process):
    """A tracking server, which knows the bucket."""

    def __init__(self, folder, s3_env, options):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        database = f"sqlite:///{folder}/mlflow.db"
        options = ["--backend-store-uri", database, "--host", "127.0.0.1", "--port", str(self.port), *options]
        # Its jobs are for nobody here, and leave files in /dev/shm.
        own = {"PATH": f"{PYTHON.parent}:/usr/bin:/bin", "HOME": folder, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        super().__init__([PYTHON, "-m", "mlflow", "server", "--workers", "1", *options], own | s3_env)

    def is_ready(self):
        assert not self.ended(), "MLflow ended before it was ready"
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=servers.PATIENCE):
                return True
        except OSError:
            return False


@contextmanager
def mlflow(folder, s3_env, options):
    server = Mlflow(folder, s3_env, options)
    try:
        eventually(server.is_ready, "a ready MLflow", patience=90)
        yield server
    finally:
        server.kill()


def s3_env(minio):
    """What MLflow's server and client want to know of the bucket."""
    return {
        "MLFLOW_S3_ENDPOINT_URL": minio.endpoint,
        "AWS_ACCESS_KEY_ID": minio.ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": minio.SECRET_KEY,
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


def log(server, s3_env, script, folder):
    """What the script says about each model that it logs, by name."""
    env = {"MLFLOW_TRACKING_URI": server.url, "HOME": str(folder), "PATH": "/usr/bin:/bin", **s3_env}
    command = [PYTHON, ROOT / "tests/e2e" / script, folder]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {line["name"]: line for line in lines}
