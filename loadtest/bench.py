"""What is promised of scheduling, measured: each promise beside what was seen, on one page of text; the runs are kept.

The server is held to the first CPU that this process may use, with one thread, the generator to the second. Needs
target/release/stoker (of make build, which tells it its commit) and target/release/loadtest, and for the saturated networks:
pip install -r loadtest/saturate/requirements.txt
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from serving import serving

# Everything is named from here: what is kept has no paths of this machine.
os.chdir(Path(__file__).resolve().parents[1])
LOADTEST = "target/release/loadtest"
MODELS = Path("tests/models")
NEW = Path("target/bench")


@contextmanager
def made_models():
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "loadtest/saturate/models.py", folder], check=True)
        yield Path(folder)


class Bench:
    def __init__(self, out):
        self.out = out
        self.cpus = sorted(os.sched_getaffinity(0))
        if len(self.cpus) < 2:
            sys.exit("two CPUs are needed, one for the server and one for the generator")
        self.rows = []

    def tell(self, promise, seen, holds):
        self.rows.append((promise, seen, holds))
        print(f"{promise}: {seen}{'' if holds else '  (does not hold)'}", flush=True)

    def play(self, scenario, label, model, folder, *flags, options=()):
        """The steps of a run, by name."""
        with serving(self.cpus[0], model, folder, *flags) as url:
            run = self.run(scenario, "--target", url, "--label", label, *options)
        return {step["name"]: step for step in run["steps"]}

    def run(self, scenario, *options):
        command = ["taskset", "-c", str(self.cpus[1]), LOADTEST, "run", f"loadtest/scenarios/{scenario}.toml"]
        run = self.kept([*command, *options])
        for build in {target["build"] for target in run["targets"]}:
            if build is None or "commit=unknown" in build:
                print(f"warning: of which commit the server is, is unknown ({build}): build it with make build", file=sys.stderr)
        return run

    def kept(self, command):
        """What a command leaves as JSON."""
        shutil.rmtree(NEW, ignore_errors=True)
        NEW.mkdir(parents=True)
        done = subprocess.run([*command, "--out", NEW], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(map(str, command))}: {done.stderr}")
        (kept,) = NEW.glob("*.json")
        text = kept.read_text()
        (self.out / kept.name).write_text(text)
        return json.loads(text)

    def scheduler(self):
        measured = self.kept([LOADTEST, "scheduler"])["measured"]
        worst = max(one["nanoseconds_per_request"] for one in measured)
        self.tell("scheduling costs under 2 us a request", f"at most {worst / 1000:.2f} us", worst < 2000)

    def saturated(self):
        for result in self.kept([sys.executable, "loadtest/saturate/compare.py"])["results"]:
            ratio, model = result["ratio"], result["model"]
            self.tell(f"saturated {model}: at least 0.95 of onnxruntime's loop", f"{ratio:.2f}", ratio >= 0.95)

    def overload(self):
        slow = ("slow", MODELS / "slow")
        steps = self.play("overload", "stoker", *slow)
        rates = goodputs(steps)
        part = rates["2.0"] / max(rates.values())
        seen = f"{part:.2f} ({told(rates)}); {stolen(steps)}"
        self.tell("goodput at 2 times the capacity at least 0.95 of its peak", seen, part >= 0.95)
        double = steps["2.0"]["all"]
        accepted = double["outcomes"]["200"] + double["outcomes"].get("504", 0)
        late = 1 - double["goodput_per_second"] * steps["2.0"]["seconds"] / accepted
        seen = f"{late:.2%} of those let in missed it, p99 of answers {double['milliseconds']['p99']:.0f} ms of 400 ms"
        self.tell("p99 of who is let in within the objective", seen, late <= 0.01)
        refusal = double["refusal_milliseconds"]["p50"]
        self.tell("a refusal costs under 1 ms", f"{refusal:.2f} ms from request to answer (median)", refusal < 1)
        flags = ["--max_queue_delay_microseconds", "5000", "--preferred_batch_size", "32"]
        steps = self.play("overload", "static delay", *slow, *flags, options=["--without-deadlines"])
        self.tell("beside it, a delay of 5 ms and no deadlines known", told(goodputs(steps)), True)

    def mixed_shapes(self):
        with made_models() as folder:
            steps = self.play("mixed-shapes", "stoker", "mean", folder / "mean")
        one, two = steps["one shape"], steps["a, b, a, b"]
        ratio = two["mean_batch_rows"] / one["mean_batch_rows"]
        # Large batches are nothing to be proud of when they are those of a server that does not keep up.
        refused = max(1 - answered(step) for step in (one, two))
        seen = f"{ratio:.2f} ({two['mean_batch_rows']:.1f} rows; {refused:.1%} not answered); {stolen(steps)}"
        self.tell("shapes A,B,A,B: rows a batch at least 0.8 of one shape's", seen, ratio >= 0.8 and refused <= 0.01)

    def light(self):
        iris = (self.cpus[0], "iris", MODELS / "iris")
        # On one core: one request is on its way at a time, to one of them.
        with serving(*iris, "--max_batch_size", "1") as off, serving(*iris) as on:
            run = self.run("light", "--target", f"no batching={off}", "--target", f"batching={on}")
        (comparison,) = run["comparison"]
        ratio = comparison["p50_ratio"]
        seen = f"{ratio['seen']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f}), both at the same moments"
        self.tell("light load: p50 within 5 % of batching off", seen, ratio["seen"] <= 1.05)

    def fairness(self):
        """The median of three plays: a few stalls of the machine, which is full beside the greedy one, are one's p99."""
        plays = []
        with made_models() as folder:
            for _ in range(3):
                steps = self.play("fairness", "stoker", "short", folder / "short", "--tenant_header", "x-tenant")
                quiet = (dict(steps[name]["traffic"])["quiet"]["milliseconds"]["p99"] for name in ("alone", "beside"))
                plays.append((*quiet, stolen(steps)))
        ratio = statistics.median(beside / alone for alone, beside, _ in plays)
        each = ", ".join(f"{beside / alone:.2f} of {alone:.1f} ms, {stolen}" for alone, beside, stolen in plays)
        self.tell("a tenant that asks ten times its share: another's p99 at most 1.5 times", f"{ratio:.2f} times ({each})", ratio <= 1.5)


def goodputs(steps):
    return {name: step["all"]["goodput_per_second"] for name, step in steps.items()}


def answered(step):
    """The part of a step's requests."""
    outcomes = step["all"]["outcomes"]
    return outcomes.get("200", 0) / sum(outcomes.values())


def told(rates):
    return ", ".join(f"{name}: {rate:.0f}/s" for name, rate in rates.items())


def stolen(steps):
    """What the host gave to others of the processors' time, in the mean."""
    parts = [step["stolen"] for step in steps.values() if step["stolen"] is not None]
    return f"stolen {statistics.mean(parts):.0%}" if parts else "stolen unknown"


def main():
    parts = ["scheduler", "saturated", "overload", "mixed_shapes", "light", "fairness"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=parts, help=", ".join(parts))
    parser.add_argument("--out", type=Path, default=Path("loadtest/runs"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(options.out)
    for part in options.parts:
        getattr(bench, part)()
    print("\n| promise | seen | |\n|---|---|---|")
    for promise, seen, holds in bench.rows:
        print(f"| {promise} | {seen} | {'holds' if holds else 'does not hold'} |")


if __name__ == "__main__":
    main()
