"""The kernels that are checked in are what their sources give."""

import subprocess

from servers import ROOT

PYTHON = ROOT / "target/tools/cuda-venv/bin/python"


def test_images_are_what_the_sources_give():
    command = [PYTHON, "kernels/images.py", "--check"]
    env = {"PATH": "/usr/bin:/bin"}  # the compiler of the virtual environment, not one of this machine's
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"run kernels/images.py: {done.stdout}{done.stderr}"
