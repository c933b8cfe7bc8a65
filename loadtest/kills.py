"""Kills a model's process again and again while it is asked, and tells what its callers notice: how long the model is away
beside how long it takes to load, and whether any answer is lost, or somebody else's.

Needs target/release/stoker (of make build) and nothing else.
"""

import argparse
import http.client
import json
import os
import platform
import re
import signal
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from datetime import datetime, timezone
from pathlib import Path

from serving import serving

MODEL = Path(__file__).resolve().parents[1] / "tests/models/variable"
PATIENCE = 20
# Each request may be lost once: between two kills so many are answered.
ANSWERS_BETWEEN = 20


class Callers:
    """Ask, each on a connection of its own, for twice a number that nobody else asks for."""

    def __init__(self, address, count):
        self.address = address
        self.answered = 0
        self.wrong = []
        self.is_over = False
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.ask, args=(number,)) for number in range(count)]
        for thread in self.threads:
            thread.start()

    def ask(self, caller):
        connection = http.client.HTTPConnection(self.address, timeout=PATIENCE)
        number = 0
        while not self.is_over:
            number += 1
            own = float(caller * 1_000_000 + number)
            tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [own, -own]}
            body = json.dumps({"id": f"{caller}-{number}", "inputs": [tensor]})
            try:
                connection.request("POST", "/v2/models/variable/infer", body)
                response = connection.getresponse()
                answer = json.loads(response.read())
                is_right = response.status == 200 and answer["id"] == f"{caller}-{number}"
                is_right = is_right and answer["outputs"][0]["data"] == [2 * own, -2 * own]
            except (OSError, http.client.HTTPException, KeyError) as error:
                is_right, answer = False, repr(error)
                connection.close()
            with self.lock:
                self.answered += is_right
                if not is_right:
                    self.wrong.append(answer)

    def end(self):
        self.is_over = True
        for thread in self.threads:
            thread.join()


def eventually(condition):
    until = time.monotonic() + PATIENCE
    while not (found := condition()):
        if time.monotonic() > until:
            sys.exit("the model's process did not come back")
        time.sleep(0.0005)
    return found


def children(pid):
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def begun_anew(log):
    events = (json.loads(line) for line in log.read_text().splitlines() if line.startswith("{"))
    return {event["pid"]: event for event in events if event["message"] == "the model's process began anew"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--callers", type=int, default=4)
    parser.add_argument("--out", type=Path, help="a folder in which the run is kept")
    options = parser.parse_args()
    killed = {}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        cpu = sorted(os.sched_getaffinity(0))[0]
        flags = ["--worker", "process", "--log_level", "info", "--log_format", "json"]
        with log.open("w") as stderr, serving(cpu, "variable", MODEL, *flags, stderr=stderr) as url:
            (server,) = (child for child in children(os.getpid()) if children(child))
            callers = Callers(url.removeprefix("http://"), options.callers)
            for _ in range(options.kills):
                before = callers.answered
                eventually(lambda: callers.answered >= before + ANSWERS_BETWEEN)
                (victim,) = eventually(lambda: children(server))
                began = time.time()
                os.kill(victim, signal.SIGKILL)
                eventually(lambda: children(server) not in ([], [victim]))
                (successor,) = children(server)
                killed[successor] = began
            before = callers.answered
            eventually(lambda: callers.answered >= before + ANSWERS_BETWEEN)
            callers.end()
            with urllib.request.urlopen(f"{url}/metrics") as metrics:
                commit = re.search(r'stoker_build_info{.*?commit="(\w+)"', metrics.read().decode())[1]
        events = begun_anew(log)
    loads = [events[pid]["seconds"] for pid in killed]
    aways = [datetime.fromisoformat(events[pid]["timestamp"]).timestamp() - began for pid, began in killed.items()]
    beyond = sorted(away - load for away, load in zip(aways, loads))
    seen = {
        "command": " ".join(["loadtest/kills.py", *sys.argv[1:]]),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": commit,
        "cpu": next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "kills": options.kills,
        "answered": callers.answered,
        "lost_or_wrong": callers.wrong,
        "load_milliseconds": quantiles(loads),
        "away_milliseconds": quantiles(aways),
        "away_beyond_load_milliseconds": quantiles(beyond),
    }
    print(json.dumps(seen, indent=2))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / f"kills-{seen['date'].replace(':', '-')}.json").write_text(json.dumps(seen, indent=2) + "\n")
    if callers.wrong:
        sys.exit(f"{len(callers.wrong)} answers were lost or wrong")


def quantiles(seconds):
    cuts = statistics.quantiles(seconds, n=100, method="inclusive") if len(seconds) > 1 else seconds * 99
    named = {"p50": cuts[49], "p99": cuts[98], "max": max(seconds)}
    return {name: round(value * 1000, 3) for name, value in named.items()}


if __name__ == "__main__":
    main()
