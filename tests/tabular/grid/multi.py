"""Many classes and several outputs from estimators of two classes and of one output."""

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier, OutputCodeClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier, MultiOutputRegressor, RegressorChain
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from . import Case, repeated
from .ensembles import VERSION, labels, rows


def cases(random):
    yield from repeated(random, families)


def families(random):
    inners = {
        "logistic": LogisticRegression(),
        "tree": DecisionTreeClassifier(max_depth=2, random_state=random.seed32()),
        "linear": LinearRegression(),
        "pipeline": make_pipeline(StandardScaler(), RidgeClassifier(solver="svd")),
    }
    for classes in [2, 3, 5] if random.wide else [2, 3]:
        x, y = random.classification(classes=classes, rows=90 if random.wide else 40)
        y = labels(random, y)
        for name, inner in inners.items():
            if random.wide or classes == 3 or name in ["logistic", "tree"]:
                yield Case(f"OneVsRest_{classes}_{name}", OneVsRestClassifier(inner).fit(x, y), rows(random))
            if name == "linear" or not random.wide and (classes == 3) == (name == "tree"):
                continue
            yield Case(f"OneVsOne_{classes}_{name}", OneVsOneClassifier(inner).fit(x, y), rows(random))
            model = OutputCodeClassifier(inner, code_size=2, random_state=random.seed32())
            if random.wide or classes == 3:
                yield Case(f"OutputCode_{classes}_{name}", model.fit(x, y), rows(random))
    yield from multilabel(random, inners)
    yield from several_outputs(random)
    if VERSION >= (1, 7):
        x, _ = random.classification()
        one = OneVsRestClassifier(inners["logistic"]).fit(x, np.full(len(x), 3))
        yield Case("OneVsRest_one_class", one, rows(random), ["predict", "predict_proba"])


def multilabel(random, inners):
    x, y = random.classification(classes=3, rows=60 if random.wide else 40)
    many = np.stack([y == 0, y != 2, x[:, 0] > 0.5, np.ones(len(y))], axis=1).astype(int)
    for name, inner in inners.items():
        if name != "linear":
            y = many[:, random.rng.permutation(4)]
            # The constant of the column of ones has methods that the others may lack.
            methods = ["predict"] + [method for method in ["predict_proba", "decision_function"] if hasattr(inner, method)]
            yield Case(f"OneVsRest_multilabel_{name}", OneVsRestClassifier(inner).fit(x, y), rows(random), methods)
    for name, inner in inners.items():
        if name == "linear" or not random.wide and name == "pipeline":
            continue
        for order in [None, [2, 0, 1], "random"] if random.wide else [[2, 0, 1]]:
            model = ClassifierChain(inner, order=order, random_state=random.seed32()).fit(x, many[:, :3])
            yield Case(f"ClassifierChain_{name}_{type(order).__name__}", model, rows(random))
    if VERSION >= (1, 5):
        for method in ["predict_proba", "decision_function", ["predict_proba", "predict"]][: 3 if random.wide else 1]:
            model = ClassifierChain(inners["logistic"], chain_method=method).fit(x, many[:, :3])
            yield Case(f"ClassifierChain_{method if isinstance(method, str) else 'list'}", model, rows(random))


def several_outputs(random):
    x, y = random.classification(classes=3, rows=60 if random.wide else 40)
    other = (x[:, 1] > 0).astype(int)
    forest = RandomForestClassifier(n_estimators=2, max_depth=2, random_state=random.seed32())
    for name, both in {
        "int": np.stack([y, other], axis=1),
        "text": np.stack([np.array(["a", "bb", "c"])[y], np.array(["no", "yes"])[other]], axis=1),
        "bool": np.stack([y == 1, other == 1], axis=1),
    }.items():
        yield Case(f"MultiOutputClassifier_{name}", MultiOutputClassifier(forest).fit(x, both), rows(random))
    x, y = random.regression(rows=60 if random.wide else 40)
    both = np.stack([y, x[:, 0] - y * y], axis=1)
    for name, inner in {"linear": LinearRegression(), "tree": DecisionTreeRegressor(max_depth=2)}.items():
        yield Case(f"MultiOutputRegressor_{name}", MultiOutputRegressor(inner).fit(x, both), rows(random))
        model = RegressorChain(inner, order=[1, 0]).fit(x, both)
        yield Case(f"RegressorChain_{name}", model, rows(random).astype(np.float32))
