"""Compiles the kernels into kernels/images, which are checked in: code for some GPUs, and text that drivers compile for others.

Needs CUDA 13.0's compiler: nvcc on the PATH or named in NVCC, or pip install -r kernels/requirements.txt. --check compares
what it makes with what is there, and changes nothing.
"""

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
IMAGES = HERE / "images"
SOURCES = ["batch", "classes", "forest", "shap"]
CAPABILITIES = ["80", "86", "89", "90", "100"]
# Sums are to be the same as the CPU's: a product and a sum are rounded apart.
FLAGS = ["-O3", "-std=c++17", "--fmad=false", "-Werror", "all-warnings"]


def compiler():
    installed = Path(sysconfig.get_path("purelib")) / "nvidia/cu13/bin/nvcc"
    found = os.environ.get("NVCC") or shutil.which("nvcc") or (installed.exists() and installed)
    return found or sys.exit("no nvcc: pip install -r kernels/requirements.txt")


def images(nvcc, folder):
    for name in SOURCES:
        for capability in CAPABILITIES:
            yield [nvcc, *FLAGS, "-cubin", f"-arch=sm_{capability}"], name, folder / f"{name}.sm_{capability}.cubin"
        yield [nvcc, *FLAGS, "-ptx", "-arch=compute_80"], name, folder / f"{name}.compute_80.ptx"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    differing = []
    with tempfile.TemporaryDirectory() as folder:
        for command, name, made in images(compiler(), Path(folder)):
            # By a relative path: nothing of this machine is in what is made.
            subprocess.run([*command, f"{name}.cu", "-o", made], cwd=HERE, check=True)
            kept = IMAGES / made.name
            if not kept.exists() or kept.read_bytes() != made.read_bytes():
                differing.append(made.name)
                if not options.check:
                    IMAGES.mkdir(exist_ok=True)
                    shutil.copy(made, kept)
    print(f"{len(differing)} images differ: {', '.join(differing)}" if differing else "all images are up to date")
    sys.exit(1 if options.check and differing else 0)


if __name__ == "__main__":
    main()
