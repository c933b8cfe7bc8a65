"""Writes cases: see the package."""

import argparse
import importlib
import warnings
from collections import Counter

from . import Random, write

FAMILIES = ["trees", "linear", "svm", "bayes", "neural", "neighbors", "cluster", "discriminant", "gaussian_process"]
FAMILIES += ["scale", "function", "impute", "encode"]
FAMILIES += ["histogram", "ensembles", "multi", "calibrate", "wrappers"]
FAMILIES += ["text", "discretize", "power", "polynomial", "select", "decompose", "label", "explain", "boosters"]

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder")
parser.add_argument("--families", default=",".join(FAMILIES))
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--wide", action="store_true")
parser.add_argument("--most", type=int, default=10_000, help="cases of each class in each family")
options = parser.parse_args()

warnings.simplefilter("ignore")
count = 0
for family in options.families.split(","):
    seen = Counter()
    module = importlib.import_module(f"{__package__}.{family}")
    cases = module.cases(Random(options.seed, options.wide))
    while True:
        try:
            case = next(cases)
        except StopIteration:
            break
        except Exception as error:
            # Some random data no library can fit; a family that seldom gets to its end shows in the count of cases.
            if not options.wide:
                raise
            print(f"{family} ends early, seed {options.seed}: {error!r}")
            break
        seen[type(case.model)] += 1
        if seen[type(case.model)] <= options.most:
            case.name = f"{family}_{case.name}"
            write(case, options.folder)
            count += 1
print(f"{count} cases in {options.folder}, seed {options.seed}")
