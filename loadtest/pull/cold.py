"""From a started process to the first correct answer: the iris forest from MinIO, by stoker, and by KServe's storage
initializer and Python server, one after the other as a pod runs them, by turns in one run.

    python loadtest/pull/cold.py --rounds 5

Everything is warm but the process: programs and the object are in the page cache, stoker's own cache is empty, or it holds
the model ("restarts"). Needs: pip install -r loadtest/pull/requirements.txt kserve scikit-learn
"""

import argparse
import datetime
import http.client
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from store import KEYS, client, free_port, minio, workshop

ROOT = Path(__file__).resolve().parents[2]
FLOWER = b'{"instances": [[5.1, 3.5, 1.4, 0.2]]}'
PATIENCE_SECONDS = 60


def main():
    options = arguments()
    with workshop(ROOT / "target/cold") as work:
        subprocess.run([sys.executable, ROOT / "loadtest/kserve/iris-forest", "--train", work / "forest"], check=True)
        with minio(options.minio, work) as endpoint:
            s3 = client(endpoint)
            s3.create_bucket(Bucket="models")
            s3.upload_file(str(work / "forest/model.joblib"), "models", "iris/model.joblib")
            report(options, measure(options, endpoint, work), (work / "forest/model.joblib").stat().st_size)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minio", default=ROOT / "target/tools/bin/minio")
    parser.add_argument("--stoker", default=ROOT / "target/release/stoker")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", default=ROOT / "loadtest/runs")
    return parser.parse_args()


def until(attempt):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            if answer := attempt():
                return answer
        except OSError:
            pass
        time.sleep(0.001)
    sys.exit(f"no answer in {PATIENCE_SECONDS} s")


def ask(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    connection.request("POST", "/v1/models/iris:predict", FLOWER, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    body = json.loads(answer.read())
    connection.close()
    if answer.status == 200:
        assert body == {"predictions": [0]}, body
    return answer.status == 200


def first_answer(command, env, folder, before=None):
    """Seconds from the first process to the first answer; `before` runs to its end first, as an init container."""
    port = free_port()
    quiet = {"env": env, "cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    begun = time.perf_counter()
    if before:
        subprocess.run(before, check=True, timeout=PATIENCE_SECONDS, **quiet)
    server = subprocess.Popen(command(port), **quiet)
    try:
        until(lambda: ask(port))
        return time.perf_counter() - begun
    finally:
        server.kill()
        server.wait()


def measure(options, endpoint, work):
    env = {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": KEYS["aws_access_key_id"], "PATH": os.environ["PATH"]}
    env |= {"AWS_SECRET_ACCESS_KEY": KEYS["aws_secret_access_key"], "AWS_DEFAULT_REGION": "us-east-1"}
    uri = "s3://models/iris"
    seconds = {"stoker": [], "stoker restarts": [], "KServe": []}
    for number in range(options.rounds):
        folder = work / f"run-{number}"
        folder.mkdir()
        stoker = [options.stoker, "serve", "--model_name=iris", f"--storage_uri={uri}", f"--cache_dir={folder}/cache"]
        for name in ["stoker", "stoker restarts"]:
            seconds[name].append(first_answer(lambda port: [*stoker, "--host=127.0.0.1", f"--http_port={port}"], env, folder))
        code = "import sys; from kserve_storage import Storage; Storage.download_files([sys.argv[1]], [sys.argv[2]])"
        initializer = [sys.executable, "-c", code, uri, folder / "target/iris-forest"]
        server = [sys.executable, ROOT / "loadtest/kserve/iris-forest"]
        seconds["KServe"].append(first_answer(lambda port: [*server, f"--port={port}"], env, folder, before=initializer))
    return seconds


def report(options, seconds, size):
    medians = {name: round(statistics.median(taken), 4) for name, taken in seconds.items()}
    ratio = round(medians["KServe"] / medians["stoker"])
    print(medians, f"KServe takes {ratio} times as long")
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    content = {"command": " ".join(["loadtest/pull/cold.py", *sys.argv[1:]]), "date": now, "commit": commit}
    content |= {"machine": platform.platform(), "cpus": os.cpu_count(), "model_bytes": size}
    content |= {"median_seconds": medians, "kserve_by_stoker": ratio, "seconds": seconds}
    path = Path(options.out) / f"cold-{now}.json"
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(path)


main()
