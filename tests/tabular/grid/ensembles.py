"""Estimators made of others: boosting, bagging, voting, stacking; isolation forests."""

import numpy as np
import sklearn
from sklearn import ensemble
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor

from . import Case, repeated

VERSION = tuple(int(part) for part in sklearn.__version__.split(".")[:2])


def base(inner):
    """The option was renamed in 1.2."""
    return {"estimator" if VERSION >= (1, 2) else "base_estimator": inner}


def several(random):
    return int(random.rng.integers(1, 25)) if random.wide else 3


def scaled(inner):
    return make_pipeline(StandardScaler(), inner)


def labels(random, y):
    """Classes of several types."""
    kinds = [
        lambda: y,
        lambda: np.array(["a", "bb", "c", "d", "e"])[y],
        lambda: y.astype(np.int32) * 3 - 1,
        lambda: y.astype(float),
        lambda: np.array(["a", "bb", "c", "d", "e"], dtype=object)[y],
    ]
    kinds += [lambda: y == 1] if y.max() == 1 else []
    return kinds[random.rng.integers(len(kinds))]()


# Small mode has each kind once: with three classes, or else with two.
WITH_THREE = ["stump", "few", "votes", "hard_weights", "auto"]
WITH_TWO = ["tree", "logistic", "hard", "soft", "drop", "passthrough", "predict"]


def is_small(name):
    kind = name.split("_", 2)[-1].removeprefix("SAMME_")
    others = ["IsolationForest_auto", "IsolationForest_bootstrap", "BaggingRegressor_linear", "StackingRegressor_auto"]
    rest = name not in others and "extra" not in name
    return {"2": kind in WITH_TWO, "3": kind in WITH_THREE}.get(name.split("_")[1], rest)


def rows(random, **options):
    return random.rows(rows=10 if random.wide else 5, **options)


def cases(random):
    for case in repeated(random, families):
        if random.wide or is_small(case.name):
            yield case


def families(random):
    counts = [2, 3, 5] if random.wide else [2, 3]
    for classes in counts:
        x, y = random.classification(classes=classes, rows=80 if random.wide else 40)
        y = labels(random, y)
        yield from boosted(random, x, y, classes)
        yield from bagged(random, x, y, classes)
        yield from voted(random, x, y, classes)
        yield from stacked(random, x, y, classes)
    yield from regressors(random)
    yield from isolated(random)
    x, _ = random.classification()
    model = ensemble.AdaBoostClassifier(n_estimators=3).fit(x, np.full(len(x), 7))
    # Its decision function is a column, where a server gives a vector.
    yield Case("AdaBoostClassifier_single", model, rows(random), ["predict", "predict_proba"])


def boosted(random, x, y, classes):
    size = {"n_estimators": several(random), "random_state": random.seed32()}
    inners = {"stump": DecisionTreeClassifier(max_depth=1), "tree": ExtraTreeClassifier(max_depth=3)}
    inners["logistic"] = LogisticRegression()
    for name, inner in inners.items():
        for algorithm in ["SAMME", "SAMME.R"]:
            option = {}
            if VERSION < (1, 4):
                option = {"algorithm": algorithm}
            elif algorithm == "SAMME.R":
                continue
            model = ensemble.AdaBoostClassifier(**base(inner), **option, **size).fit(x, y)
            yield Case(f"AdaBoostClassifier_{classes}_{algorithm}_{name}", model, rows(random))


def bagged(random, x, y, classes):
    size = {"n_estimators": several(random), "random_state": random.seed32()}
    inners = {
        "tree": DecisionTreeClassifier(max_depth=3),
        "few": DecisionTreeClassifier(max_depth=2),  # with so few samples that some miss a class
        "logistic": LogisticRegression(),
        "votes": RidgeClassifier(solver="svd"),
        "pipeline": scaled(LogisticRegression()),
    }
    for name, inner in inners.items():
        option = {"max_samples": 6} if name == "few" else {}
        if name in ["tree", "votes"]:
            option = {"max_features": 0.6, "bootstrap_features": bool(random.rng.integers(2))}
        try:
            model = ensemble.BaggingClassifier(**base(inner), **option, **size).fit(x, y)
        except ValueError:
            continue
        methods = ["predict", "predict_proba"]
        if all(len(inner.classes_) == classes for inner in model.estimators_) and name not in ["tree", "few"]:
            methods.append("decision_function")
        yield Case(f"BaggingClassifier_{classes}_{name}", model, rows(random), methods)


def voted(random, x, y, classes):
    members = [
        ("tree", DecisionTreeClassifier(max_depth=3, random_state=random.seed32())),
        ("logistic", scaled(LogisticRegression())),
        ("forest", ensemble.RandomForestClassifier(n_estimators=2, max_depth=2, random_state=random.seed32())),
    ]
    weights = [0.5, 1.2, 0.7]
    for name, option in {
        "hard": {},
        "hard_weights": {"weights": weights},
        "soft": {"voting": "soft"},
        "soft_weights": {"voting": "soft", "weights": weights},
        "soft_deep": {"voting": "soft", "flatten_transform": False},
        "drop": {"weights": weights},
    }.items():
        model = ensemble.VotingClassifier(members, **option)
        if name == "drop":
            model.set_params(tree="drop")
        methods = ["predict", "predict_proba"] + ([] if name == "soft_deep" else ["transform"])
        yield Case(f"VotingClassifier_{classes}_{name}", model.fit(x, y), rows(random), methods)


def stacked(random, x, y, classes):
    members = [
        ("tree", DecisionTreeClassifier(max_depth=3, random_state=random.seed32())),
        ("ridge", RidgeClassifier(solver="svd")),
        ("logistic", scaled(LogisticRegression())),
    ]
    for name, option in {
        "auto": {},
        "passthrough": {"passthrough": True, "final_estimator": DecisionTreeClassifier(max_depth=3, random_state=0)},
        "predict": {"stack_method": "predict", "final_estimator": RidgeClassifier(solver="svd")},
    }.items():
        model = ensemble.StackingClassifier(members, cv=2, **option).fit(x, y)
        yield Case(f"StackingClassifier_{classes}_{name}", model, rows(random))
    if VERSION >= (1, 2) and classes == 3:
        both = np.stack([x[:, 0] > 0, x[:, 1] > 0.2, x[:, 2] > -0.3], axis=1)[:, : 2 + random.rng.integers(2)]
        forest = ensemble.RandomForestClassifier(n_estimators=2, max_depth=3, random_state=random.seed32())
        members = [("forest", forest), ("tree", DecisionTreeClassifier(max_depth=2, random_state=0))]
        last = DecisionTreeClassifier(max_depth=3, random_state=0)
        model = ensemble.StackingClassifier(members, final_estimator=last, cv=2).fit(x, both.astype(int))
        yield Case("StackingClassifier_multilabel", model, rows(random))


def regressors(random):
    x, y = random.regression(rows=80 if random.wide else 40)
    size = {"n_estimators": several(random), "random_state": random.seed32()}
    tree, linear = DecisionTreeRegressor(max_depth=3, random_state=random.seed32()), LinearRegression()
    for name, inner in {"tree": tree, "extra": ExtraTreeRegressor(max_depth=2), "linear": linear}.items():
        for loss in ["linear", "square"] if random.wide else ["linear"]:
            model = ensemble.AdaBoostRegressor(**base(inner), loss=loss, **size).fit(x, y)
            yield Case(f"AdaBoostRegressor_{name}_{loss}", model, rows(random))
        model = ensemble.BaggingRegressor(**base(inner), max_features=0.7, **size).fit(x, y)
        yield Case(f"BaggingRegressor_{name}", model, rows(random).astype(np.float32 if name == "tree" else float))
    model = ensemble.BaggingRegressor(**base(linear), **size).fit(x, np.stack([y, y * y], axis=1))
    yield Case("BaggingRegressor_two_outputs", model, rows(random))
    members = [("tree", tree), ("ridge", scaled(Ridge(solver="svd"))), ("linear", linear)]
    for name, option in {"equal": {}, "weights": {"weights": [1, 2, 0.3]}}.items():
        yield Case(f"VotingRegressor_{name}", ensemble.VotingRegressor(members, **option).fit(x, y), rows(random))
    for name, option in {"auto": {}, "passthrough": {"passthrough": True, "final_estimator": Ridge(solver="svd")}}.items():
        model = ensemble.StackingRegressor(members, cv=2, **option).fit(x, y)
        # The default, RidgeCV, and the others are fitted to nearly collinear columns.
        yield Case(f"StackingRegressor_{name}", model, rows(random), tolerance=1e-10)


def isolated(random):
    x, _ = random.regression(rows=300 if random.wide else 40)
    for name, option in {
        "auto": {},
        "contamination": {"contamination": 0.1},
        "features": {"max_features": 0.5, "max_samples": 20},
        "bootstrap": {"bootstrap": True, "max_samples": 0.3},
    }.items():
        model = ensemble.IsolationForest(n_estimators=several(random) + 1, random_state=random.seed32(), **option)
        yield Case(f"IsolationForest_{name}", model.fit(x), rows(random))
    if VERSION >= (1, 6):
        x[random.rng.random(x.shape) < 0.1] = np.nan
        model = ensemble.IsolationForest(n_estimators=several(random), random_state=random.seed32()).fit(x)
        yield Case("IsolationForest_missing", model, rows(random, missing=0.3))
