"""What the comparisons of tree engines have in common: data, stoker as one of those who are timed, and where figures come from."""

import datetime
import json
import os
import platform
import subprocess
import sys
import time

import numpy as np

COLUMNS = 32


def data(rows, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, COLUMNS)).astype(np.float32)
    noise = rng.normal(size=rows) * 0.3
    return x, (x[:, 0] * x[:, 1] + np.sin(3 * x[:, 2]) + x[:, 3] ** 2 + noise).astype(np.float32)


class Stoker:
    """The benchmark binary, asked line by line."""

    def __init__(self, binary, model, rows, on_gpu=False):
        command = [binary, "tabular", "--model", model, "--rows", rows, "--columns", str(COLUMNS)]
        command += ["--gpu"] if on_gpu else []
        self.answers = f"{rows}.answers"
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([*command, "--answers", self.answers], stdin=pipe, stdout=pipe, text=True)
        self.load_seconds = int(self.process.stdout.readline().split()[1]) / 1e9

    def times(self, rows, repeats):
        self.process.stdin.write(f"{rows} {repeats}\n")
        self.process.stdin.flush()
        return [int(nanoseconds) for nanoseconds in self.process.stdout.readline().split()]

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)


def times(predict, x, rows, repeats):
    taken = []
    for repeat in range(repeats):
        start = (repeat * rows) % (len(x) - rows + 1)
        part = x[start : start + rows]
        began = time.perf_counter_ns()
        predict(part)
        taken.append(time.perf_counter_ns() - began)
    return taken


def provenance(command):
    """Of figures that are kept."""
    with open("/proc/cpuinfo") as cpuinfo:
        cpu = next(line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name"))
    git = subprocess.run(["git", "describe", "--always", "--dirty", "--exclude=*"], capture_output=True, text=True)
    now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    return {
        "command": " ".join([command, *sys.argv[1:]]),
        "date": now.isoformat().replace("+00:00", "Z"),
        "commit": git.stdout.strip() or None,
        "cpu": cpu,
        "kernel": platform.release(),
    }


def keep(report, folder, name):
    """Writes a report with its provenance, and tells where."""
    path = os.path.join(folder, f"{name}-{report['date'].replace(':', '-')}.json")
    with open(path, "w") as out:
        json.dump(report, out, indent=1)
        out.write("\n")
    return path
