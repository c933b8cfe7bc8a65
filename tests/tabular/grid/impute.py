"""Imputers, and pipelines that begin with them."""

import numpy as np
import pandas as pd
import sklearn
from sklearn import impute
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from . import Case


def supported(estimator, **options):
    """Options that this version of the estimator has."""
    return {name: value for name, value in options.items() if hasattr(estimator(), name)}


STRATEGIES = ["mean", "median", "most_frequent", "constant"]


def null(frame, value):
    """The frame with `value` for what is missing of its text."""
    city = [value if city is None or city != city else city for city in frame["city"]]
    return frame.assign(city=pd.Series(city, index=frame.index, dtype=object))


def cases(random):
    for strategy in STRATEGIES if sklearn.__version__ >= "1.2" else ["mean", "median", "constant"]:
        x = np.round(random.rows(rows=20, missing=0.3))
        rows = np.round(random.rows(missing=0.3, rows=6))
        model = impute.SimpleImputer(strategy=strategy, add_indicator=strategy != "constant")
        yield Case(strategy, model.fit(x), rows)
        single = impute.SimpleImputer(strategy=strategy).fit(x.astype(np.float32))
        yield Case(f"{strategy}_single", single, rows.astype(np.float32))
        x[:, 1] = np.nan
        for keep in [True, False] if random.wide else [False]:
            options = supported(impute.SimpleImputer, keep_empty_features=keep)
            options["add_indicator"] = bool(random.rng.random() < 0.5)
            yield Case(f"{strategy}_empty_{keep}", impute.SimpleImputer(strategy=strategy, **options).fit(x), rows)
        x, rows = np.nan_to_num(x, nan=-1), np.nan_to_num(rows, nan=-1)
        yield Case(f"{strategy}_number", impute.SimpleImputer(missing_values=-1, strategy=strategy).fit(x), rows)
    integers = impute.SimpleImputer(missing_values=0, strategy="constant", fill_value=7)
    yield Case("integers", integers.fit(random.rng.integers(0, 3, (20, 3))), random.rng.integers(0, 3, (5, 3)).astype(float))
    text = impute.SimpleImputer(missing_values="Ulm", strategy="most_frequent")
    columns = ["city", "plan"]
    yield Case("text", text.fit(random.frame()[columns]), random.frame(rows=6)[columns])
    frame = random.frame(missing=0.3)
    constant = impute.SimpleImputer(missing_values=None, strategy="constant", fill_value="none")
    yield Case("none", constant.fit(null(frame, None)[columns]), null(random.frame(rows=9, missing=0.4), None)[columns])
    frame, rows = null(frame, np.nan), null(random.frame(rows=9, missing=0.4), np.nan)
    nan = impute.SimpleImputer(strategy="most_frequent", add_indicator=True)
    yield Case("nan_text", nan.fit(frame[columns]), rows[columns])
    # None that was a value of its own in training is one now.
    frame, rows = null(random.frame(missing=0.3), None), null(random.frame(rows=9, missing=0.4), None)
    for name, imputer in [
        ("frequent", impute.SimpleImputer(strategy="most_frequent")),
        ("constant", impute.SimpleImputer(strategy="constant", fill_value="missing")),
        ("marked", impute.SimpleImputer(strategy="most_frequent", add_indicator=True)),
    ]:
        encoded = make_pipeline(imputer, OneHotEncoder(handle_unknown="ignore"))
        yield Case(f"none_{name}", encoded.fit(frame[columns]), rows[columns])
    # Sparse matrices with missing values.
    sparse = make_pipeline(
        make_column_transformer((OneHotEncoder(), ["city", "plan"]), (StandardScaler(), ["age"]), sparse_threshold=1),
        impute.SimpleImputer(add_indicator=True),
    )
    yield Case("sparse", sparse.fit(frame), rows[rows["city"].notna()])

    for features in ["missing-only", "all"]:
        x = random.rows(rows=20, missing=0.2)
        x[:, 1] = 0
        rows = random.rows(rows=6, missing=0.5)
        indicator = impute.MissingIndicator(features=features, error_on_new=False)
        yield Case(f"indicator_{features}", indicator.fit(x), rows)
    indicator = impute.MissingIndicator(missing_values=None, sparse=True)
    frame, rows = random.frame(missing=0.3), random.frame(rows=6, missing=0.5)
    yield Case("indicator_none", indicator.fit(null(frame, None)[["city"]]), null(rows, None)[["city"]])

    for weights in ["uniform", "distance"]:
        for number in range(5 if random.wide else 1):
            columns = random.rng.integers(2, 7)
            x = random.rows(rows=30, columns=columns, missing=0.2)
            rows = random.rows(rows=10 if random.wide else 5, columns=columns, missing=0.4)
            rows[0] = np.nan
            rows[1:3] = x[1:3]
            options = {"n_neighbors": int(random.rng.integers(1, 6)), "weights": weights}
            if number > 1:
                x[:, 1] = np.nan
                options |= supported(impute.KNNImputer, keep_empty_features=bool(number % 2))
            options["add_indicator"] = number > 0
            # Small distances are differences of large sums, which BLAS adds in an order of its own.
            tolerance = 1e-12 if weights == "uniform" else 1e-7
            model = impute.KNNImputer(**options).fit(x)
            yield Case(f"knn_{weights}_{number}", model, rows, tolerance=tolerance)
    x = np.nan_to_num(random.rows(rows=20, missing=0.2), nan=-9)
    rows = np.nan_to_num(random.rows(rows=5, missing=0.3), nan=-9)
    yield Case("knn_number", impute.KNNImputer(missing_values=-9, n_neighbors=2).fit(x), rows)

    for number in range(6 if random.wide else 1):
        x, rows = random.rows(rows=40, columns=4, missing=0.2), random.rows(columns=4, missing=0.4)
        options = {"max_iter": int(random.rng.integers(1, 5)) if random.wide else 2, "random_state": random.seed32()}
        if number > 0:
            x[:, 1] = np.nan
            options |= supported(impute.IterativeImputer, keep_empty_features=number > 2)
            options["imputation_order"] = ["ascending", "roman", "random"][number % 3]
        if number > 3:
            options |= {"estimator": RandomForestRegressor(2, max_depth=3, random_state=0), "min_value": -1}
        options |= {"n_nearest_features": 2} if number == 5 else {"add_indicator": number == 2}
        model = impute.IterativeImputer(**options).fit(x)
        yield Case(f"iterative_{number}", model, rows, tolerance=1e-10)  # each round takes the last one's errors on

    # What people make of their frames.
    for number in range(4 if random.wide else 1):
        frame, rows = null(random.frame(rows=80, missing=0.2), None), null(random.frame(rows=8, missing=0.3), None)
        numeric = make_pipeline(
            impute.SimpleImputer(strategy="median", add_indicator=bool(number % 2)), StandardScaler()
        )
        text = make_pipeline(
            impute.SimpleImputer(missing_values=None, strategy="constant", fill_value="?"),
            OneHotEncoder(handle_unknown="ignore"),
        )
        columns = ColumnTransformer(
            [
                ("numbers", numeric, ["age", "visits"]),
                ("money", make_pipeline(impute.KNNImputer(), FunctionTransformer(np.log1p)), ["income"]),
                ("text", text, ["city", "plan"]),
            ],
            sparse_threshold=[0, 0.3, 1, 0][number],
        )
        y = np.where(frame["plan"] == "plus", "yes", "no")
        y[random.rng.random(len(y)) < 0.3] = "yes"
        forest = RandomForestClassifier(n_estimators=3, max_depth=3, random_state=random.seed32())
        model = [LogisticRegression(), forest][number % 2]
        yield Case(f"frame_{number}", make_pipeline(columns, model).fit(frame, y), rows)

    x, rows = random.rows(rows=20, missing=0.3).astype(np.float32), random.rows(rows=4, missing=0.3).astype(np.float32)
    yield Case("indicator_single", impute.SimpleImputer(add_indicator=True).fit(x), rows)

    # Rows that have columns in common with fewer rows than are asked for: until 1.5 others counted, too. The case
    # whose name ends with a version was made by that version.
    x = np.full((5, 4), np.nan)
    x[:3, :2], x[:, 2], x[3:, 3] = random.rng.normal(size=(3, 2)), random.rng.normal(size=5), 1
    few = np.array([[1.0, 0.5, np.nan, np.nan], [np.nan, -1.0, np.nan, np.nan], [np.nan, np.nan, np.nan, 2.0]])
    version = "" if sklearn.__version__ >= "1.6" else f"_{sklearn.__version__.replace('.', '_')}"
    yield Case(f"knn_few{version}", impute.KNNImputer(n_neighbors=5).fit(x), few)
    yield Case("iterative_one", impute.IterativeImputer(random_state=0).fit(x[:, 1:2]), few[:, 1:2])
    x, rows = random.rows(rows=20, columns=2, missing=0.2), random.rows(rows=3, columns=2, missing=0.4)
    for protocol in [0, 1]:
        model = impute.IterativeImputer(max_iter=2, random_state=0).fit(x)
        yield Case(f"iterative_protocol_{protocol}", model, rows, tolerance=1e-10, protocol=protocol)
