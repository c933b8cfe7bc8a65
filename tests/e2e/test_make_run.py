"""The README's first command: `make run` prints curl lines that work when pasted, and starts in about a second."""

import itertools
import os
import signal
import subprocess
import time

from servers import ROOT, eventually, free_port


def test_the_printed_curl_lines_work():
    began = time.monotonic()
    make = subprocess.Popen(
        ["make", "--no-print-directory", "run", f"PORT={free_port()}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        printed = (line.strip() for line in make.stdout)
        lines = list(itertools.islice((line for line in printed if line.startswith("curl ")), 3))
        v1, v2, metrics = (eventually(lambda line=line: paste(line), line) for line in lines)
        assert time.monotonic() - began < 10, "a second start takes about a second; this is already ten"
        assert '"predictions":[{"label":0,' in v1
        assert '"model_name":"iris"' in v2 and '"data":[0]' in v2
        assert 'stoker_requests_total{model="iris",version="1",protocol="v2",code="200"} 1' in metrics
    finally:
        os.killpg(make.pid, signal.SIGINT)  # what Ctrl-C does
        make.wait(30)


def paste(line):
    """What a shell makes of the line; nothing while the server is not there yet."""
    assert line.startswith("curl "), line
    done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=10)
    return done.stdout if done.returncode == 0 else None
