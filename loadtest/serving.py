"""A stoker for as long as something is measured of it."""

import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

STOKER = Path(__file__).resolve().parents[1] / "target/release/stoker"


@contextmanager
def serving(cpu, name, folder, *flags, stderr=None):
    """Serves a model with one thread, held to one CPU; gives its address once it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["taskset", "-c", str(cpu), STOKER, "serve", "--model_name", name, "--model_dir", folder, "--threads", "1"]
    command += ["--host", "127.0.0.1", "--http_port", str(port), "--log_level", "warn", *flags]
    server = subprocess.Popen(command, stderr=stderr)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{url}/v2/health/ready", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        else:
            sys.exit(f"{name} did not become ready")
        yield url
    finally:
        server.terminate()
        server.wait()
