"""Support vector machines with kernels."""

import numpy as np
from sklearn import svm
from sklearn.metrics.pairwise import pairwise_kernels

from . import Case

KERNELS = [
    {"kernel": "linear"},
    {"kernel": "poly", "degree": 2, "coef0": 0.5},
    {"kernel": "rbf", "gamma": "auto"},
    {"kernel": "sigmoid", "coef0": 0.1},
]
MORE = [{"kernel": "poly", "gamma": 0.7, "C": 0.1}, {"kernel": "rbf", "gamma": 2.0}, {"kernel": "rbf", "C": 50}]


def size(random):
    return {"rows": int(random.rng.integers(30, 200)), "columns": int(random.rng.integers(2, 30))} if random.wide else {
        "rows": 16,
        "columns": 4,
    }


def rounding(model, rows):
    """How far apart two orders of summation may be, by the greatest decision: coefficients are not bounded here, and what
    is left of their sum may be a ten millionth of its terms."""
    options = {"gamma": model._gamma, "degree": model.degree, "coef0": model.coef0}
    kernels = pairwise_kernels(rows, model.support_vectors_, metric=model.kernel, filter_params=True, **options)
    terms = np.abs(kernels) @ np.abs(model._dual_coef_).max(axis=0)
    return np.finfo(float).eps * terms.max() / np.abs(model.decision_function(rows)).max()


def cases(random):
    for number, options in enumerate(KERNELS + MORE * random.wide):
        shape = size(random)
        columns = shape["columns"]
        for classes in [2, 3] + [7] * random.wide:
            x, y = random.classification(classes=classes, **shape)
            for name, model in {
                "ovr": svm.SVC(**options, probability=number == 2 or random.wide, random_state=0),
                "ovo": svm.SVC(**options, decision_function_shape="ovo"),
                "ties": svm.SVC(**options, break_ties=True, class_weight="balanced"),
            }.items():
                if (name == "ovr" and (classes == 3 or number == 2)) or number == 1 or random.wide:
                    yield Case(f"SVC_{number}_{classes}_{name}", model.fit(x, y), random.few(columns))
            if number == 1 or random.wide:
                model = svm.SVC(**options, probability=True, random_state=0).fit(random.thin(x), y)
                yield Case(f"SVC_{number}_{classes}_sparse", model, random.thin(random.few(columns)))
        if number == 2 or random.wide:
            uncosted = {key: value for key, value in options.items() if key != "C"}
            model = svm.NuSVC(nu=0.01 if random.wide else 0.1, **uncosted)
            model, rows = model.fit(x, np.array(list("abcdefg"))[y]), random.few(columns)
            yield Case(f"NuSVC_{number}", model, rows, tolerance=max(1e-12, rounding(model, rows)))
        x, y = random.regression(**shape)
        yield Case(f"SVR_{number}", svm.SVR(**options).fit(x, y), random.few(columns).astype(np.float32))
        if number == 2 or random.wide:
            model = svm.SVR(**options).fit(random.thin(x), y)
            yield Case(f"SVR_{number}_sparse", model, random.few(columns))
            yield Case(f"NuSVR_{number}", svm.NuSVR(nu=0.3, **options).fit(x, y), random.few(columns))
            model = svm.OneClassSVM(nu=0.3, **uncosted).fit(x)
            # A linear kernel's terms are far greater than what is left of their sum.
            tolerance = 1e-12 if number else 1e-8
            yield Case(f"OneClassSVM_{number}", model, random.few(columns), tolerance=tolerance)
    x, y = random.regression(rows=12)
    yield Case("SVR_no_vectors", svm.SVR(epsilon=100.0).fit(x, y), random.few())
