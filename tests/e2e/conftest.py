"""What several test files share."""

from contextlib import ExitStack
from functools import cache

import pytest

import servers
from models import MODELS, THREADS
from servers import Process


@pytest.fixture(scope="session")
def serving():
    """Gives the server of a fixture model, started when first asked for: for tests that only send requests."""
    with ExitStack() as stack:

        @cache
        def start(model):
            args = [f"--model_name={model}", f"--model_dir={MODELS / model}", f"--threads={THREADS}"]
            return stack.enter_context(servers.stoker(*args))

        yield start


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
