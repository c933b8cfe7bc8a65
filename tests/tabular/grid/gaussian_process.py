"""Gaussian processes and kernel ridge regression."""

import numpy as np
import sklearn
from sklearn import gaussian_process, kernel_ridge
from sklearn.gaussian_process import kernels

from . import Case


VERSION = tuple(int(part) for part in sklearn.__version__.split(".")[:2])


def some_kernels(columns):
    yield None
    yield 2.0 * kernels.RBF(np.arange(1, columns + 1) / 2) + kernels.WhiteKernel(0.1)
    yield kernels.Matern(nu=1.5) * kernels.DotProduct(0.5) ** 2 + kernels.ConstantKernel(0.3)
    yield kernels.Matern(nu=0.5) + kernels.Matern(2.0, nu=2.5) * kernels.Matern(nu=np.inf)
    yield kernels.RationalQuadratic(0.7, 1.3) + kernels.ExpSineSquared(1.5, 2.0) + kernels.WhiteKernel(9.0)


def cases(random):
    for case in models(random):
        if not random.wide:  # most of the file, for nothing
            case.model._rng = None
            if hasattr(case.model, "base_estimator_"):
                case.model.base_estimator_.rng = None
        yield case


def models(random):
    for number in range(4 if random.wide else 1):
        columns = int(random.rng.integers(1, 9)) if number else 3
        size = 40 if random.wide else 10
        for place, kernel in enumerate(some_kernels(columns)):
            name = f"{number}_{place}"
            x, y = random.regression(size, columns)
            options = {"kernel": kernel, "optimizer": None, "alpha": 0.01}
            model = gaussian_process.GaussianProcessRegressor(normalize_y=place % 2 == 0, **options)
            yield Case(f"GaussianProcessRegressor_{name}", model.fit(x, y), random.few(columns))
            del options["alpha"]
            x, y = random.classification(size, columns, 2)
            model = gaussian_process.GaussianProcessClassifier(**options).fit(x, np.array(["no", "yes"])[y])
            # The approximation subtracts numbers that are thousands of times greater than the result.
            yield Case(f"GaussianProcessClassifier_{name}", model, random.few(columns), tolerance=1e-9)
        for kind in ["one_vs_rest", "one_vs_one"] if random.wide else []:
            x, y = random.classification(size, columns, 3)
            model = gaussian_process.GaussianProcessClassifier(multi_class=kind).fit(x, y)
            methods = ["predict", "predict_proba"] if kind == "one_vs_rest" else ["predict"]
            yield Case(f"GaussianProcessClassifier_{kind}_{number}", model, random.few(columns), methods, 1e-9)
        x, y = random.regression(size, columns)
        model = gaussian_process.GaussianProcessRegressor(alpha=0.1, normalize_y=True)
        # A row's answers may be what is left of greater numbers.
        model.fit(x, np.stack([y, -2 * y], axis=1))
        yield Case(f"GaussianProcessRegressor_{number}_targets", model, random.few(columns), tolerance=1e-9)
        model = gaussian_process.GaussianProcessRegressor(alpha=0.1).fit(x, y[:, None])
        yield Case(f"GaussianProcessRegressor_{number}_one", model, random.few(columns), tolerance=1e-9)
        if VERSION < (1, 1):
            continue  # asks newer scipys for what they no longer know
        for kernel in ["linear", "rbf", "poly", "sigmoid", "laplacian", "cosine"]:
            model = kernel_ridge.KernelRidge(kernel=kernel, gamma=0.3 if kernel == "rbf" else None, alpha=0.1, degree=2)
            yield Case(f"KernelRidge_{kernel}_{number}", model.fit(x, y), random.few(columns))
        model = kernel_ridge.KernelRidge(alpha=0.1).fit(random.thin(x), np.stack([y, -2 * y], axis=1))
        yield Case(f"KernelRidge_targets_{number}", model, random.few(columns), tolerance=1e-9)
