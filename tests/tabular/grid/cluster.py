"""Clusters by their centres, and mixtures of Gaussians."""

import numpy as np
import pandas as pd
from sklearn import cluster, mixture
from sklearn.compose import ColumnTransformer
from sklearn.feature_selection import VarianceThreshold
from sklearn.impute import SimpleImputer
from sklearn.kernel_approximation import AdditiveChi2Sampler
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Binarizer, FunctionTransformer, OrdinalEncoder

from . import Case


def cases(random):
    for number in range(5 if random.wide else 1):
        columns = int(random.rng.integers(2, 20)) if number else 3
        count = int(random.rng.integers(1, 12)) if number else 4
        x = random.rows(columns, 120 if random.wide else 20)
        models = [
            cluster.KMeans(count, n_init=2, random_state=0),
            cluster.MiniBatchKMeans(count, n_init=2, random_state=0),
            cluster.Birch(n_clusters=count, threshold=0.8),
            cluster.Birch(n_clusters=None, threshold=0.8),
            cluster.MeanShift(),
            cluster.AffinityPropagation(random_state=0),
        ]
        if hasattr(cluster, "BisectingKMeans"):
            models.append(cluster.BisectingKMeans(count, random_state=0))
        for place, model in enumerate(models):
            name = f"{type(model).__name__}_{number}_{place}"
            yield Case(name, model.fit(x), random.few(columns))
        yield Case(f"KMeans_{number}_sparse", models[0], random.thin(random.few(columns)))
        # Singles are added up as singles, in an order of their own.
        model = cluster.KMeans(count, n_init=2, random_state=0).fit(x.astype(np.float32))
        yield Case(f"KMeans_{number}_single", model, random.few(columns).astype(np.float32), tolerance=1e-5)
        for covariance in ["full", "tied", "diag", "spherical"]:
            options = {"covariance_type": covariance, "random_state": 0, "max_iter": 20, "n_components": 1 + count % 4}
            model = mixture.GaussianMixture(**options).fit(x)
            yield Case(f"GaussianMixture_{covariance}_{number}", model, random.few(columns))
            kind = ["dirichlet_process", "dirichlet_distribution"][covariance in ["tied", "spherical"] or number % 2]
            model = mixture.BayesianGaussianMixture(weight_concentration_prior_type=kind, **options)
            yield Case(f"BayesianGaussianMixture_{covariance}_{number}", model.fit(x), random.few(columns))
        yield from integers(random, number)


def frames(random, number):
    """Columns of a frame have types of their own, which meet where they are put side by side."""
    frame = pd.DataFrame(random.rows(4, 120) * 3, columns=list("abcd"))
    rows = pd.DataFrame(np.round(random.rows(4, 8) * 4), columns=list("abcd")).astype({"a": int, "b": int, "d": int})
    for name, parts, remainder in [
        ("beside", [("p", "passthrough", ["a"]), ("q", FunctionTransformer(np.negative), ["d"])], "drop"),
        ("rest", [("p", VarianceThreshold(), ["b"]), ("c", "drop", ["c"])], "passthrough"),
        ("floats", [("p", "passthrough", ["a", "c"])], "drop"),
        ("binary", [("p", Binarizer(), ["a", "b"]), ("q", SimpleImputer(strategy="most_frequent"), ["d"])], "drop"),
    ]:
        columns = ColumnTransformer(parts, remainder=remainder)
        model = make_pipeline(columns, mixture.GaussianMixture(3, random_state=0, max_iter=20)).fit(frame)
        yield Case(f"GaussianMixture_{name}_{number}", model, rows)
    sampler = AdditiveChi2Sampler().fit(frame.abs())
    yield Case(f"AdditiveChi2Sampler_{number}", sampler, rows[["a", "b", "d", "a"]].abs().to_numpy())


def integers(random, number):
    """Since 1.7 squared distances are kept in the type of the rows, which cuts off what integers have no room for."""
    columns = int(random.rng.integers(1, 5))
    x = random.rows(columns, 120) * 3
    kinds = [("full", "int64"), ("tied", "int32"), ("diag", "int64"), ("full", "int8"), ("tied", "uint8")]
    for covariance, dtype in kinds + [("diag", "int8"), ("spherical", "int8"), ("spherical", "uint8"), ("diag", "int16")]:
        model = mixture.GaussianMixture(5, covariance_type=covariance, random_state=0, max_iter=20).fit(x)
        rows = np.round(random.rows(columns, 40 if random.wide else 6) * 4)
        rows = np.abs(rows) if dtype[0] == "u" else rows
        rows = rows * 10 if dtype == "int16" else rows
        yield Case(f"GaussianMixture_{covariance}_{number}_{dtype}", model, rows.astype(dtype))
    rows = np.round(random.rows(columns, 6) * 4).astype(int)
    model = make_pipeline(VarianceThreshold(), mixture.BayesianGaussianMixture(n_components=5, random_state=0, max_iter=20)).fit(x)
    yield Case(f"GaussianMixture_selected_{number}", model, rows)
    yield from frames(random, number)
    codes = random.rng.integers(0, 4, (60, 2))
    model = make_pipeline(OrdinalEncoder(dtype=np.int64), mixture.GaussianMixture(4, random_state=0, max_iter=20))
    yield Case(f"GaussianMixture_encoded_{number}", model.fit(codes), codes[:6].astype(float))
