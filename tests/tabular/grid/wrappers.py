"""Searches, thresholds, transformed targets and baselines."""

import numpy as np
from sklearn.compose import TransformedTargetRegressor
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import RandomForestClassifier, RandomTreesEmbedding
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, RidgeClassifier
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.tree import DecisionTreeRegressor

from . import INVERSE, Case, repeated
from .encode import sparse_output
from .ensembles import VERSION, labels, rows


def cases(random):
    yield from repeated(random, families)


def families(random):
    size = {"rows": 80 if random.wide else 30}
    x, y = random.classification(classes=3, **size)
    y = labels(random, y)
    scaled = make_pipeline(StandardScaler(), LogisticRegression())
    model = GridSearchCV(scaled, {"logisticregression__C": [0.1, 1.0]}, cv=2)
    yield Case("GridSearchCV", model.fit(x, y), rows(random))
    forest = RandomForestClassifier(n_estimators=2, max_depth=2, random_state=random.seed32())
    model = RandomizedSearchCV(forest, {"max_depth": [1, 2, 3]}, n_iter=2, cv=2, random_state=0)
    yield Case("RandomizedSearchCV", model.fit(x, y), rows(random))
    codes = np.unique(y, return_inverse=True)[1]
    codes[random.rng.random(len(y)) < 0.3] = -1
    yield Case("SelfTrainingClassifier", SelfTrainingClassifier(LogisticRegression()).fit(x, codes), rows(random))
    steps = [("scaler", StandardScaler()), ("nothing", "passthrough"), ("last", LogisticRegression())]
    yield Case("Pipeline_passthrough", Pipeline(steps, verbose=False).fit(x, y), rows(random))
    yield from thresholds(random, size)
    yield from targets(random, size)
    yield from dummies(random, x, y)
    yield from bins(random, size)
    yield from encoders(random, size)


def thresholds(random, size):
    x, y = random.classification(classes=2, **size)
    text = np.array(["no", "yes"])[y]
    if VERSION >= (1, 6):
        from sklearn.frozen import FrozenEstimator

        frozen = FrozenEstimator(LogisticRegression().fit(x, y))
        yield Case("FrozenEstimator", frozen, rows(random))
    if VERSION >= (1, 5):
        from sklearn.metrics import f1_score, make_scorer
        from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV

        for name, model in {
            "auto": FixedThresholdClassifier(LogisticRegression()),
            "high": FixedThresholdClassifier(LogisticRegression(), threshold=0.7),
            "no": FixedThresholdClassifier(LogisticRegression(), threshold=0.3, pos_label="no"),
            "decision": FixedThresholdClassifier(RidgeClassifier(), threshold=-0.2, pos_label="no"),
        }.items():
            yield Case(f"FixedThreshold_{name}", model.fit(x, text), rows(random))
        model = TunedThresholdClassifierCV(LogisticRegression(), cv=2, thresholds=10).fit(x, text)
        yield Case("TunedThreshold", model, rows(random))
        scorer = make_scorer(f1_score, pos_label="no")
        model = TunedThresholdClassifierCV(LogisticRegression(), scoring=scorer, cv=2, thresholds=10).fit(x, text)
        yield Case("TunedThreshold_no", model, rows(random))
        if random.wide:
            model = TunedThresholdClassifierCV(RidgeClassifier(), scoring="f1", cv=2, thresholds=10).fit(x, y)
            yield Case("TunedThreshold_f1", model, rows(random))


def targets(random, size):
    x, y = random.regression(**size)
    linear = LinearRegression()
    model = TransformedTargetRegressor(linear, transformer=StandardScaler()).fit(x, y)
    yield Case("TransformedTarget_scaler", model, rows(random))
    model = TransformedTargetRegressor(linear, transformer=StandardScaler()).fit(x, np.stack([y, y * y], axis=1))
    yield Case("TransformedTarget_two_outputs", model, rows(random))
    model = TransformedTargetRegressor(Ridge(solver="svd"), func=np.log1p, inverse_func=np.expm1)
    yield Case("TransformedTarget_log1p", model.fit(x, np.exp(y / 5)), rows(random))
    model = TransformedTargetRegressor(DecisionTreeRegressor(max_depth=2)).fit(x, y)
    yield Case("TransformedTarget_nothing", model, rows(random))
    model = RandomTreesEmbedding(n_estimators=3, max_depth=2, random_state=random.seed32()).fit(x)
    yield Case("RandomTreesEmbedding", model, rows(random))


def bins(random, size):
    x, y = random.regression(**size)
    for encode in ["ordinal", "onehot-dense"]:
        model = TransformedTargetRegressor(
            DecisionTreeRegressor(max_depth=2), transformer=KBinsDiscretizer(4, encode=encode), check_inverse=False
        )
        yield Case(f"TransformedTarget_bins_{encode}", model.fit(x, y), rows(random))
    scaled = make_pipeline(StandardScaler(), KBinsDiscretizer(4, encode="ordinal"))
    model = TransformedTargetRegressor(DecisionTreeRegressor(max_depth=2), transformer=scaled, check_inverse=False)
    yield Case("TransformedTarget_bins_scaled", model.fit(x, y), rows(random))


def encoders(random, size):
    x, y = random.regression(**size)
    tree = DecisionTreeRegressor(max_depth=3)
    steps = np.round(y)
    one_hot = sparse_output(False)
    for name, transformer, target in [
        ("ordinal", OrdinalEncoder(), steps),
        ("ordinal_integers", OrdinalEncoder(), steps.astype(int)),
        ("ordinal_unknown", OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), steps),
        ("onehot", OneHotEncoder(**one_hot), steps.astype(np.int32)),
        ("onehot_dropped", OneHotEncoder(drop="first", handle_unknown="error", **one_hot), steps),
        ("onehot_ignored", OneHotEncoder(handle_unknown="ignore", **one_hot), np.stack([steps, y > 0], axis=1)),
        ("imputer", SimpleImputer(add_indicator=True), y),
        ("ordinal_scaled", make_pipeline(OrdinalEncoder(), StandardScaler()), steps.astype(int)),
    ]:
        model = TransformedTargetRegressor(tree, transformer=transformer, check_inverse=False)
        case = Case(f"TransformedTarget_{name}", model.fit(x, target), rows(random))
        if name == "ordinal_unknown":  # objects, for there might be None
            case.answers = {"predict": model.predict(case.rows).astype(float)}
            case.methods = ["predict"]
        yield case
    codes = np.array([[-1.0, 2.9], [0.2, 0], [3, 1]])
    categories = random.rng.integers(0, 4, (30, 2)).astype(float)
    categories[:4] = np.arange(4)[:, None]
    categories[:, 1][4:9] = np.nan
    yield Case("OrdinalEncoder_inverse", OrdinalEncoder().fit(categories), codes, INVERSE)
    encoder = OneHotEncoder(drop="if_binary", handle_unknown="ignore", **one_hot).fit(categories)
    codes = np.abs(random.rows(sum(map(len, encoder.categories_)), 4))
    codes[1, :4] = 0
    yield Case("OneHotEncoder_inverse", encoder, codes, INVERSE)


def dummies(random, x, y):
    both = np.stack([y, y[::-1]], axis=1)
    for strategy in ["prior", "most_frequent", "constant"]:
        first = y[0].item() if isinstance(y[0], np.generic) else y[0]
        constant = {"constant": first} if strategy == "constant" and not isinstance(first, float) else {}
        if strategy == "constant" and not constant:
            continue
        model = DummyClassifier(strategy=strategy, **constant).fit(x, y)
        yield Case(f"DummyClassifier_{strategy}", model, rows(random))
        constant = {"constant": [y[0], y[1]]} if strategy == "constant" else {}
        model = DummyClassifier(strategy=strategy, **constant).fit(x, both)
        if random.wide:
            yield Case(f"DummyClassifier_{strategy}_two", model, rows(random))
    for strategy, option in {"mean": {}, "median": {}, "quantile": {"quantile": 0.3}, "constant": {"constant": 4}}.items():
        model = DummyRegressor(strategy=strategy, **option).fit(x, x[:, 0])
        yield Case(f"DummyRegressor_{strategy}", model, rows(random))
    if random.wide:
        yield Case("DummyRegressor_two", DummyRegressor(strategy="mean").fit(x, x[:, :2]), rows(random))
