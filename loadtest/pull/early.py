"""How much of parsing a large forest a download hides: from an empty cache to ready, beside the download alone and the start
of what is in the cache, by turns in one run.

    python loadtest/trees/load.py                   (once: it trains the forest)
    python loadtest/pull/early.py --mbytes-per-second 4

The network adds 5 ms to each request and caps each connection; without a cap it is the loopback interface. Everything is in
the page cache. Needs: pip install -r loadtest/pull/requirements.txt
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from store import KEYS, client, free_port, minio, network, workshop

ROOT = Path(__file__).resolve().parents[2]
BUCKET = "models"
PATIENCE_SECONDS = 60


def main():
    options = arguments()
    with workshop(options.work) as work, minio(options.minio, work) as endpoint:
        s3 = client(endpoint)
        s3.create_bucket(Bucket=BUCKET)
        s3.upload_file(str(options.model), BUCKET, "forest/model.joblib")
        with network(options.loadtest, 5, options.mbytes_per_second, endpoint) as url:
            report(options, measure(options, url, work))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minio", default=ROOT / "target/tools/bin/minio")
    parser.add_argument("--stoker", default=ROOT / "target/release/stoker")
    parser.add_argument("--loadtest", default=ROOT / "target/release/loadtest")
    parser.add_argument("--model", default=ROOT / "target/trees/large/model.joblib")
    parser.add_argument("--mbytes-per-second", type=int, default=0, help="of each connection")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--work", default="target/early", help="where MinIO and the cache are; tmpfs is best")
    parser.add_argument("--out", default=ROOT / "loadtest/runs")
    return parser.parse_args()


def measure(options, url, work):
    env = {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": KEYS["aws_access_key_id"], "AWS_DEFAULT_REGION": "us-east-1"}
    env |= {"AWS_SECRET_ACCESS_KEY": KEYS["aws_secret_access_key"]}
    seconds = {"download alone": [], "start with the cache": [], "start without": [], "start without, in memory": []}
    cache, uri = work / "cache", f"s3://{BUCKET}/forest"
    for _ in range(options.rounds):
        begun = time.perf_counter()
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run([options.stoker, "pull", uri, work / "pulled"], check=True, env=env, **quiet)
        seconds["download alone"].append(time.perf_counter() - begun)
        shutil.rmtree(work / "pulled")
        shutil.rmtree(cache, ignore_errors=True)
        serve = lambda cache: start([options.stoker, "serve", f"--storage_uri={uri}", f"--cache_dir={cache}"], env)
        seconds["start without"].append(serve(cache))
        seconds["start with the cache"].append(serve(cache))
        seconds["start without, in memory"].append(serve("none"))
    return seconds


def start(command, env):
    """Seconds until the model is ready."""
    port = free_port()
    flags = ["--model_name=forest", "--host=127.0.0.1", f"--http_port={port}", "--grpc_port=0", "--listen_when_ready"]
    begun = time.perf_counter()
    server = subprocess.Popen([*command, *flags], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while time.perf_counter() - begun < PATIENCE_SECONDS:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/models/forest/ready", timeout=1).close()
                return time.perf_counter() - begun
            except OSError:
                assert server.poll() is None, "stoker ended"
                time.sleep(0.001)
        sys.exit(f"not ready in {PATIENCE_SECONDS} s")
    finally:
        server.kill()
        server.wait()


def report(options, seconds):
    medians = {name: round(statistics.median(taken), 3) for name, taken in seconds.items()}
    one_after_the_other = medians["download alone"] + medians["start with the cache"]
    ratio = round(medians["start without"] / one_after_the_other, 2)
    print(medians, f"{ratio} of one after the other")
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    commit = subprocess.run(["git", "describe", "--always", "--dirty", "--exclude=*"], capture_output=True, text=True)
    content = {"command": " ".join(["loadtest/pull/early.py", *sys.argv[1:]]), "date": now, "commit": commit.stdout.strip()}
    content |= {"machine": platform.platform(), "cpus": os.cpu_count(), "model_bytes": os.path.getsize(options.model)}
    content |= {"median_seconds": medians, "of_one_after_the_other": ratio, "seconds": seconds}
    path = Path(options.out) / f"early-{now}.json"
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(path)


main()
