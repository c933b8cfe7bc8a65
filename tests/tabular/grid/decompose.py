"""Projections and kernel maps."""

import numpy as np
import sklearn
from sklearn import decomposition, kernel_approximation, random_projection
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from . import INVERSE, Case


def estimators(random):
    state = random.seed32()
    yield decomposition.PCA(3)
    yield decomposition.PCA(2, whiten=True)
    yield decomposition.TruncatedSVD(2, random_state=state)
    yield decomposition.FastICA(2, random_state=state, **whitening("unit-variance"))
    yield decomposition.FactorAnalysis(2)
    yield random_projection.GaussianRandomProjection(3, random_state=state)
    yield random_projection.SparseRandomProjection(4, density=0.5, random_state=state)
    yield decomposition.KernelPCA(2, kernel="rbf")
    yield kernel_approximation.RBFSampler(n_components=4, random_state=state)
    yield kernel_approximation.Nystroem(n_components=4, random_state=state)
    if not random.wide:
        return
    yield decomposition.IncrementalPCA(3)
    yield decomposition.IncrementalPCA(whiten=True)
    yield decomposition.PCA(0.9, svd_solver="full")
    yield decomposition.PCA(whiten=True)
    yield decomposition.FastICA(random_state=state, **whitening("arbitrary-variance"))
    yield decomposition.FastICA(random_state=state, whiten=False)
    yield decomposition.FactorAnalysis(4)
    for kernel in ["linear", "poly", "sigmoid", "cosine"]:
        # A sigmoid of products in the hundreds is 1, and what is left of its differences is noise.
        gamma = 0.001 if kernel == "sigmoid" else 0.1
        yield decomposition.KernelPCA(3, kernel=kernel, gamma=gamma, coef0=0.5, degree=2)
        yield kernel_approximation.Nystroem(kernel, gamma=gamma, n_components=5, random_state=state) if kernel in [
            "poly",
            "sigmoid",
        ] else kernel_approximation.Nystroem(kernel, n_components=5, random_state=state)
    yield kernel_approximation.Nystroem("laplacian", n_components=5, random_state=state)


def whitening(how):
    return {"whiten": how} if sklearn.__version__ >= "1.1" else {}


def cases(random):
    for number, model in enumerate(estimators(random)):
        name = f"{type(model).__name__}_{number}"
        x = random.rows(rows=30, columns=6)
        x = x * [1, 2, 3, 1, 0.1, 1] + [0, 5, 0, -2, 100, 0]
        if type(model).__name__ in ["KernelPCA", "Nystroem"]:
            x = x * 0.1
        # Eigenvectors of small eigenvalues are large, and cancel; distances are differences of large sums.
        loose = 1e-6 if isinstance(model, decomposition.KernelPCA) else 1e-8 if name.startswith("Nystroem") else 1e-11
        try:
            model.fit(x)
        except (TypeError, ValueError, AttributeError):
            continue  # a scipy that is too new for this estimator
        yield Case(name, model, x[: 6 if random.wide else 3] * 1.5, tolerance=loose)
        if "SVD" in name or hasattr(model, "mean_") and hasattr(model, "inverse_transform"):
            yield Case(f"{name}_inverse", model, model.transform(x)[:3], INVERSE, tolerance=loose)
        # Columns that add up to 1 leave a component without variance, which whitening divides by.
        degenerate = getattr(model, "whiten", None) is True and model.n_components is None
        if random.wide and not name.startswith("KernelPCA") and not degenerate:
            yield Case(f"{name}_single", model, x[:6].astype(np.float32), tolerance=1e-5)
            one_hot = make_column_transformer((OneHotEncoder(), ["city", "plan"]), sparse_threshold=1)
            try:
                model = make_pipeline(one_hot, type(model)(**model.get_params())).fit(random.frame())
            except (TypeError, ValueError):
                continue  # takes no sparse matrix
            yield Case(f"{name}_sparse", model, random.frame(rows=5), tolerance=loose)
    positive = np.abs(random.rows(rows=3))
    positive[0, :2] = 0
    for steps in [1, 2, 3]:
        yield Case(f"chi2_{steps}", kernel_approximation.AdditiveChi2Sampler(sample_steps=steps).fit(positive), positive)
    skewed = kernel_approximation.SkewedChi2Sampler(skewedness=0.5, n_components=3, random_state=0)
    yield Case("skewed_chi2", skewed.fit(positive), positive)
    frame = random.frame(rows=80).assign(review=lambda f: f["city"] + " is " + f["plan"] + " and so on")
    columns = make_column_transformer(
        (make_pipeline(TfidfVectorizer(), decomposition.TruncatedSVD(2, random_state=0)), "review"),
        (make_pipeline(StandardScaler(), decomposition.PCA(1)), ["age", "income"]),
    )
    model = make_pipeline(columns, LogisticRegression()).fit(frame, frame["plan"])
    yield Case("pipeline", model, frame.head(5), tolerance=1e-11)
    forest = RandomForestRegressor(3, max_depth=3, random_state=0)
    x, y = random.regression()
    yield Case("forest", make_pipeline(decomposition.PCA(3), forest).fit(x, y), random.rows())
