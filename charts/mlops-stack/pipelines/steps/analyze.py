"""Does a canary do as well as the version before? Asks Prometheus what callers saw of both, again and again for a while.

The policy is JSON: {"max_error_part": 0.01, "max_p99_ratio": 1.5, "min_requests": 50}. Leaves {"verdict": ...}; ends with status 3
when the canary is to be taken back, as soon as that is clear.
"""

import argparse
import json
import time
import urllib.parse
import urllib.request

from common import Refused, result


class Prometheus:
    def __init__(self, address, window):
        self.address, self.window = address, window

    def ask(self, query):
        """The number, or nothing where there is none."""
        url = f"{self.address}/api/v1/query?" + urllib.parse.urlencode({"query": query})
        with urllib.request.urlopen(url, timeout=10) as answer:
            found = json.load(answer)["data"]["result"]
        return float(found[0]["value"][1]) if found and found[0]["value"][1] != "NaN" else None

    def of(self, name, version):
        """Requests, the part of them that failed, and the p99 in seconds."""
        labels, window = f'model="{name}", version="{version}"', self.window
        requests = self.ask(f"sum(increase(stoker_requests_total{{{labels}}}[{window}]))") or 0
        failed = self.ask(f'sum(increase(stoker_requests_total{{{labels}, code=~"5.."}}[{window}]))') or 0
        p99 = self.ask(f"histogram_quantile(0.99, sum by (le) (rate(stoker_request_duration_seconds_bucket{{{labels}}}[{window}])))")
        return requests, failed / requests if requests else 0, p99


def breach(stable, canary, policy):
    """What is wrong with the canary, if anything."""
    (_, _, p99_before), (_, failed, p99) = stable, canary
    if failed > policy["max_error_part"]:
        return f"{failed:.1%} of its requests fail, and {policy['max_error_part']:.1%} may"
    if p99 and p99_before and p99 > policy["max_p99_ratio"] * p99_before:
        return f"its p99 is {p99 * 1000:.1f} ms, that of the version before {p99_before * 1000:.1f} ms"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", required=True)
    parser.add_argument("--stable", required=True, help="version")
    parser.add_argument("--canary", required=True, help="version")
    parser.add_argument("--prometheus", required=True, help="address")
    parser.add_argument("--policy", required=True, help="JSON")
    parser.add_argument("--window", default="1m")
    parser.add_argument("--seconds", type=float, default=600, help="how long the canary is watched")
    parser.add_argument("--every", type=float, default=15, help="seconds")
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    prometheus, policy = Prometheus(args.prometheus, args.window), json.loads(args.policy)
    until = time.monotonic() + args.seconds
    while True:
        stable, canary = (prometheus.of(args.name, version) for version in (args.stable, args.canary))
        has_enough = canary[0] >= policy["min_requests"]
        if has_enough and (why := breach(stable, canary, policy)):
            raise Refused(f"version {args.canary} of {args.name}: {why}")
        if time.monotonic() >= until:
            break
        time.sleep(args.every)
    if not has_enough:
        raise Refused(f"version {args.canary} of {args.name} had {canary[0]:.0f} requests, too few to be judged")
    result(args.out, verdict=f"as good as version {args.stable}")


if __name__ == "__main__":
    main()
