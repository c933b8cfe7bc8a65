"""Linear models, and the pipelines that are mostly before them."""

import numpy as np
import sklearn
from sklearn import linear_model, svm
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from . import Case

VERSION = tuple(int(part) for part in sklearn.__version__.split(".")[:2])
# 1.0 asks newer scipys for what they no longer know, unless told another way.
RIDGE = {} if VERSION >= (1, 1) else {"solver": "svd"}
LOG_LOSS = "log_loss" if VERSION >= (1, 1) else "log"

REGRESSORS = {
    "LinearRegression": {},
    "Ridge": {"alpha": 0.5, **RIDGE},
    "RidgeCV": {},
    "Lasso": {"alpha": 0.01},
    "LassoCV": {"cv": 3},
    "LassoLars": {"alpha": 0.01},
    "LassoLarsCV": {"cv": 3},
    "LassoLarsIC": {},
    "Lars": {},
    "LarsCV": {"cv": 3},
    "ElasticNet": {"alpha": 0.01},
    "ElasticNetCV": {"cv": 3},
    "OrthogonalMatchingPursuit": {"n_nonzero_coefs": 2},
    "OrthogonalMatchingPursuitCV": {"cv": 3},
    "BayesianRidge": {},
    "ARDRegression": {},
    "HuberRegressor": {},
    "QuantileRegressor": {"alpha": 0.01, "solver": "highs"},
    "TheilSenRegressor": {"random_state": 0, "max_subpopulation": 100},
    "SGDRegressor": {"random_state": 0},
    "PassiveAggressiveRegressor": {"random_state": 0},
}
POSITIVE = {
    "PoissonRegressor": [{}],
    "GammaRegressor": [{}],
    "TweedieRegressor": [{"power": 1.5}, {"power": 0}, {"power": 1.5, "link": "identity"}, {"power": 0, "link": "log"}],
}
MULTITASK = {
    "LinearRegression": {},
    "Ridge": RIDGE,
    "Lasso": {"alpha": 0.01},
    "LassoLars": {"alpha": 0.01},
    "OrthogonalMatchingPursuit": {"n_nonzero_coefs": 2},
    "MultiTaskLasso": {"alpha": 0.01},
    "MultiTaskLassoCV": {"cv": 3},
    "MultiTaskElasticNet": {"alpha": 0.01},
    "MultiTaskElasticNetCV": {"cv": 3},
}


def regressors(random, columns):
    for name, options in REGRESSORS.items() if random.wide else []:
        x, y = random.regression(columns=columns)
        yield Case(name, getattr(linear_model, name)(**options).fit(x, y), random.few(columns))
    x, y = random.regression(columns=columns)
    if random.wide:
        yield Case("LinearSVR", svm.LinearSVR(random_state=0).fit(x, y), random.few(columns))
    model = linear_model.RANSACRegressor(random_state=0).fit(x, y)
    yield Case("RANSACRegressor", model, random.few(columns))
    model = linear_model.LinearRegression(fit_intercept=False).fit(x, y)
    yield Case("LinearRegression_no_intercept", model, random.few(columns))
    thin = linear_model.SGDRegressor(penalty="l1", alpha=0.1, random_state=0).fit(x, y).sparsify()
    yield Case("SGDRegressor_sparse", thin, random.few(columns))
    for name, variants in POSITIVE.items():
        for number, options in enumerate(variants):
            model = getattr(linear_model, name)(**options).fit(x, np.exp(np.clip(y, -3, 3)))
            yield Case(f"{name}_{number}", model, random.few(columns))
    for name, options in MULTITASK.items() if random.wide else [("MultiTaskLasso", {})]:
        model = getattr(linear_model, name)(**options).fit(x, np.stack([y, -2 * y + x[:, 0], y * y], axis=1))
        yield Case(f"{name}_targets", model, random.few(columns))
    for name, options in {"LinearRegression": {}, "Ridge": RIDGE, "Lasso": {}}.items():
        model = getattr(linear_model, name)(**options).fit(x, y[:, None])
        yield Case(f"{name}_one_target", model, random.few(columns))
    single = random.few(columns).astype(np.float32)
    yield Case("Ridge_single_rows", linear_model.Ridge(**RIDGE).fit(x, y), single)
    # BLAS adds up singles as singles, in an order of its own.
    model = linear_model.Ridge(solver="svd").fit(x.astype(np.float32), y.astype(np.float32))
    yield Case("Ridge_single", model, single, tolerance=1e-5)


def logistic(random, classes):
    options = [{}, {"solver": "liblinear"}, {"fit_intercept": False}]
    if VERSION < (1, 7):
        options += [{"multi_class": "multinomial"}, {"multi_class": "ovr"}]
    if VERSION >= (1, 2) and random.wide:
        options.append({"solver": "newton-cholesky"})
    for option in options:
        if VERSION >= (1, 7) and classes > 2 and option.get("solver") == "liblinear":
            continue
        yield "_".join(str(value) for value in option.values()), linear_model.LogisticRegression(**option)
    if random.wide:
        yield "cv", linear_model.LogisticRegressionCV(cv=3, Cs=3)


def classifiers(random, columns):
    for classes in [2, 3] + random.wide * [6]:
        x, y = random.classification(columns=columns, rows=90 if random.wide else 60, classes=classes)
        for name, model in logistic(random, classes):
            yield Case(f"LogisticRegression_{classes}_{name}", model.fit(x, y), random.few(columns))
        for loss in [LOG_LOSS, "modified_huber"] + random.wide * ["hinge", "squared_hinge", "huber", "perceptron"]:
            model = linear_model.SGDClassifier(loss=loss, random_state=random.seed32())
            yield Case(f"SGDClassifier_{classes}_{loss}", model.fit(x, y), random.few(columns))
        models = [
            linear_model.RidgeClassifier(**RIDGE),
            linear_model.RidgeClassifierCV(),
            linear_model.Perceptron(random_state=0),
            linear_model.PassiveAggressiveClassifier(random_state=0),
            svm.LinearSVC(random_state=0),
        ]
        for model in models if random.wide else models[:1]:
            yield Case(f"{type(model).__name__}_{classes}", model.fit(x, y), random.few(columns))
        model = linear_model.LogisticRegression().fit(x, y).sparsify()
        yield Case(f"LogisticRegression_{classes}_sparse", model, random.few(columns))
    labels = [np.array(["a", "bb", "ccc", "d", "é", "f"]), np.arange(6, dtype=np.int32) * 3 - 2, np.arange(6) * 2.0]
    labels.append(np.array(["x", "y", "z", "ä", "n", "m"], dtype=object))
    for number, names in enumerate(labels if random.wide else labels[:2]):
        x, y = random.classification(columns=columns)
        model = linear_model.LogisticRegression().fit(x, names[y])
        yield Case(f"LogisticRegression_labels_{number}", model, random.few(columns))
    x, y = random.classification(columns=columns, classes=2)
    yield Case("RidgeClassifier_bool", linear_model.RidgeClassifier(**RIDGE).fit(x, y == 1), random.few(columns))
    many = np.stack([y, 1 - y, x[:, 0] > 0], axis=1).astype(int)
    yield Case("RidgeClassifier_multilabel", linear_model.RidgeClassifier(**RIDGE).fit(x, many), random.few(columns))
    model = linear_model.SGDOneClassSVM(random_state=0)
    yield Case("SGDOneClassSVM", model.fit(x), random.few(columns))
    # Far beyond what is likely, where rounding and underflow show.
    model = linear_model.SGDClassifier(loss="modified_huber", random_state=0).fit(*random.classification())
    yield Case("SGDClassifier_far", model, random.rows(rows=30 if random.wide else 3) * 10)


def cases(random):
    x, y = random.classification()
    model = linear_model.LogisticRegression().fit(x, y)
    yield Case("LogisticRegression_sparse_rows", model, random.thin(random.few()))
    for number in range(4 if random.wide else 1):
        columns = int(random.rng.integers(2, 40)) if random.wide and number else 5
        for case in [*regressors(random, columns), *classifiers(random, columns)]:
            case.name += f"_{number}" if random.wide else ""
            yield case
    x, y = random.regression()
    model = make_pipeline(StandardScaler(), linear_model.LinearRegression())
    yield Case("Pipeline", model.fit(x, y), random.few())
    columns = ColumnTransformer([("scaled", StandardScaler(), [0, 3])], remainder="passthrough")
    yield Case("ColumnTransformer", make_pipeline(columns, linear_model.Ridge(**RIDGE)).fit(x, y), random.few())
    one = linear_model.RidgeClassifier(**RIDGE).fit(x, np.full(len(x), 3))
    yield Case("RidgeClassifier_one_class", one, random.few())
