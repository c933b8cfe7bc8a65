"""Many processes that start at once on one cache, and one that starts again: a network of 2 GiB of weights from MinIO.

    python loadtest/pull/many.py --processes 32 --rounds 5

First so many servers start together with an empty cache: reported are the bytes that came from MinIO, by the servers' own
counters, and the seconds until the last one was ready. Their model has 256 MiB, for all of them hold it. Then, in every
round, a server of the 2 GiB starts with the cache filled, and another right from the cache's directory, which is the
backend's own load: reported is the ratio of the medians, and the bytes that came. Everything is in the page cache. Needs:
pip install -r loadtest/pull/requirements.txt.
"""

import argparse
import datetime
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper
from store import client, free_port, free_ports, minio, workshop

BUCKET = "bench"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minio", default="target/tools/bin/minio")
    parser.add_argument("--stoker", default="target/release/stoker")
    parser.add_argument("--processes", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", default="target/many")
    parser.add_argument("--out", default="loadtest/runs")
    options = parser.parse_args()
    with workshop(options.work) as work, minio(options.minio, work) as endpoint:
        s3 = client(endpoint)
        s3.create_bucket(Bucket=BUCKET)
        for name, rows in {"small": 8192, "large": 65536}.items():
            upload(s3, name, rows, work)
        keys = {"AWS_ACCESS_KEY_ID": "stoker-bench", "AWS_SECRET_ACCESS_KEY": "only-for-loopback"}
        env = {"AWS_ENDPOINT_URL": endpoint, **keys, "STOKER_HOST": "127.0.0.1"}
        report(options, {"together": together(options, env, work), "again": again(options, env, work)})


def upload(s3, name, rows, work):
    """Rows of a table by their numbers: weights that have to be there, and next to nothing to compute."""
    columns = 8192
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[rows, columns], data_location=TensorProto.EXTERNAL)
    weights.external_data.add(key="location", value="weights.bin")
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Gather", ["w", "row"], ["y"])],
        name,
        [value("row", TensorProto.INT64, ["batch"])],
        [value("y", TensorProto.FLOAT, ["batch", columns])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    s3.put_object(Bucket=BUCKET, Key=f"{name}/model.onnx", Body=model.SerializeToString())
    path = work / "weights.bin"
    block = np.random.default_rng(0).standard_normal((1024, columns), dtype=np.float32).tobytes()
    with open(path, "wb") as out:
        for _ in range(rows // 1024):
            out.write(block)
    s3.upload_file(str(path), BUCKET, f"{name}/weights.bin")
    path.unlink()


@contextmanager
def server(options, env, port, *args):
    command = [options.stoker, "serve", "--model_name=m", f"--http_port={port}", "--max_batch_size=1", *args]
    begun = time.monotonic()
    process = subprocess.Popen([str(arg) for arg in command], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}", begun
    finally:
        process.kill()
        process.wait()


def ready(url, begun):
    """Seconds from the start to the first 200."""
    while time.monotonic() < begun + 120:
        try:
            with urllib.request.urlopen(f"{url}/v2/health/ready", timeout=5):
                return time.monotonic() - begun
        except OSError:
            time.sleep(0.002)
    sys.exit("a server is not ready after two minutes")


def came(url):
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        found = re.search(r'stoker_source_bytes_total\{scheme="s3"\} (\d+)', answer.read().decode())
    return int(found.group(1)) if found else 0


def together(options, env, work):
    args = [f"--storage_uri=s3://{BUCKET}/small", f"--cache_dir={work / 'cache'}"]
    with ExitStack() as stack:
        servers = [stack.enter_context(server(options, env, port, *args)) for port in free_ports(options.processes)]
        seconds = [ready(*each) for each in servers]
        bytes_came = [came(url) for url, _ in servers]
    model = sum(path.stat().st_size for path in (work / "cache").glob("*/files/*"))
    shutil.rmtree(work / "cache")
    downloads = sum(1 for each in bytes_came if each)
    return {"processes": options.processes, "model_bytes": model, "bytes_came": sum(bytes_came), "downloads": downloads,
            "last_ready_seconds": round(max(seconds), 2)}


def again(options, env, work):
    args = [f"--storage_uri=s3://{BUCKET}/large", f"--cache_dir={work / 'cache'}"]
    with server(options, env, free_port(), *args) as (url, begun):
        cold, bytes_cold = ready(url, begun), came(url)
    (files,) = (work / "cache").glob("*/files")
    warm, bare, bytes_warm = [], [], 0
    for number in range(options.rounds):
        for kind in ["warm", "bare"] if number % 2 else ["bare", "warm"]:
            with server(options, env, free_port(), *(args if kind == "warm" else [f"--model_dir={files}"])) as (url, begun):
                (warm if kind == "warm" else bare).append(ready(url, begun))
                bytes_warm += came(url) if kind == "warm" else 0
    ratio = statistics.median(warm) / statistics.median(bare)
    return {"cold_seconds": round(cold, 3), "bytes_cold": bytes_cold, "bytes_warm": bytes_warm, "ratio": round(ratio, 3),
            "warm_seconds": [round(each, 3) for each in warm], "bare_seconds": [round(each, 3) for each in bare]}


def report(options, found):
    for name, each in found.items():
        print(name, each)
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    content = {"command": " ".join(["loadtest/pull/many.py", *sys.argv[1:]]), "date": now, "commit": commit}
    content |= {"machine": platform.platform(), "cpus": os.cpu_count(), **found}
    path = Path(options.out) / f"many-{now}.json"
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(path)


main()
