"""What several test files share."""

import os
import socket
from contextlib import ExitStack
from functools import cache

import pytest

import servers
from models import MODELS, THREADS
from servers import Process

# The developer's proxy has no way to the loopback interface, where everything here is. Some clients read only one.
os.environ |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


@pytest.fixture(scope="session")
def serving():
    """Gives the server of a fixture model, started when first asked for: for tests that only send requests."""
    with ExitStack() as stack:

        @cache
        def start(model):
            args = [f"--model_name={model}", f"--model_dir={MODELS / model}", f"--threads={THREADS}"]
            return stack.enter_context(servers.stoker(*args))

        yield start


@pytest.fixture
def silent_s3():
    """The environment of an S3 server that takes connections and never says a word: a load that never ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        yield {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s"}


def pytest_runtest_setup():
    Process.started = [process for process in Process.started if not process.ended()]
    for process in Process.started:
        process.old_log = len(process.log())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Shows beside a failure what the servers logged during the test."""
    report = yield
    if report.failed:
        logs = [(process.name, process.log()[process.old_log :]) for process in Process.started]
        report.sections += [(f"log of {name}", log[-10_000:]) for name, log in logs if log]
    return report
