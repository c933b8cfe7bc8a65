"""Calibrated classifiers, and isotonic regression."""

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from . import Case, repeated
from .ensembles import VERSION, labels, rows


def cases(random):
    yield from repeated(random, lambda random: [*calibrated(random), *isotonic(random)])


def calibrated(random):
    inners = {
        "tree": DecisionTreeClassifier(max_depth=3, random_state=random.seed32()),
        "ridge": RidgeClassifier(solver="svd"),
        "pipeline": make_pipeline(StandardScaler(), LogisticRegression()),
        "forest": RandomForestClassifier(n_estimators=3, max_depth=3, random_state=random.seed32()),
    }
    methods = ["sigmoid", "isotonic"] + (["temperature"] if VERSION >= (1, 8) else [])
    for classes in [2, 3, 5] if random.wide else [2, 3]:
        x, y = random.classification(classes=classes, rows=90 if random.wide else 40)
        y = labels(random, y)
        for name, inner in inners.items():
            for method in methods:
                for ensemble in [True, False]:
                    if not random.wide and (name not in ["tree", "ridge"] or ensemble == (classes == 3)):
                        continue
                    try:
                        model = CalibratedClassifierCV(inner, method=method, ensemble=ensemble, cv=2).fit(x, y)
                    except (ValueError, RuntimeError):  # a class occurs once
                        continue
                    kind = "all" if ensemble else "one"
                    yield Case(f"{classes}_{name}_{method}_{kind}", model, rows(random))
    # One that was fitted before.
    inner = inners["pipeline"].fit(x, y)
    if VERSION >= (1, 6):
        from sklearn.frozen import FrozenEstimator

        model = CalibratedClassifierCV(FrozenEstimator(inner), ensemble="auto", cv=2)
    else:
        model = CalibratedClassifierCV(inner, cv="prefit")
    yield Case("fitted_before", model.fit(x, y), rows(random))
    if random.wide:
        # With so many folds, some classifiers miss a class.
        few = y.copy()
        few[np.flatnonzero(y == y[0])[1:]] = y[y != y[0]][0]
        for method in methods:
            for name in ["tree", "forest"]:
                from sklearn.model_selection import KFold

                try:
                    model = CalibratedClassifierCV(inners[name], method=method, cv=KFold(5)).fit(x, few)
                    yield Case(f"missing_class_{name}_{method}", model, rows(random))
                except (ValueError, RuntimeError):
                    continue


def isotonic(random):
    x = np.round(random.rng.normal(size=40 if random.wide else 15), 1)
    y = x**3 + random.rng.normal(size=len(x))
    asked = np.concatenate([x[:5], random.rng.normal(size=10), [-9.0, 9.0]]).reshape(-1, 1)
    for bounds in ["nan", "clip", "raise"]:
        for increasing in [True, False]:
            if not random.wide and increasing == (bounds == "nan"):
                continue
            model = IsotonicRegression(out_of_bounds=bounds, increasing=increasing).fit(x, y)
            inside = np.clip(asked, x.min(), x.max()) if bounds == "raise" else asked
            yield Case(f"isotonic_{bounds}_{increasing}", model, inside, ["predict", "transform"])
    model = IsotonicRegression(out_of_bounds="clip").fit(x.astype(np.float32), y.astype(np.float32))
    yield Case("isotonic_single", model, asked.astype(np.float32), ["predict", "transform"], tolerance=1e-7)
    constant = IsotonicRegression(out_of_bounds="clip").fit([1.0, 2.0], [3.0, 3.0])
    yield Case("isotonic_constant", constant, asked, ["predict", "transform"])
