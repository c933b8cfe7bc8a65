"""xgboost's and lightgbm's scikit-learn classes, alone and inside of scikit-learn's estimators."""

import lightgbm
import numpy as np
import pandas as pd
import xgboost
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import BaggingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectFromModel
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline

from . import Case

WORDS = ["red", "green", "blue", "old", "new", "wide"]
# Their probabilities are f32.
TOLERANCE = 1e-6


def cases(random):
    size = {"n_estimators": 20 if random.wide else 3, "max_depth": 3}
    kinds = {
        "xgboost": lambda: xgboost.XGBClassifier(**size),
        "lightgbm": lambda: lightgbm.LGBMClassifier(**size, min_child_samples=2, verbose=-1),
    }
    for name, make in kinds.items():
        for classes in [2, 3]:
            x, y = random.classification(classes=classes, columns=3)
            frame = pd.DataFrame(x, columns=["a", "b", "c"])
            rows = pd.DataFrame(random.few(3), columns=["a", "b", "c"])
            models = {
                "alone": make(),
                "passed_to": make_pipeline("passthrough", make()),
                "one_vs_rest": OneVsRestClassifier(make()),
                "calibrated": CalibratedClassifierCV(make(), cv=2, ensemble=False),
                "bagged": BaggingClassifier(make(), n_estimators=2, random_state=0),
                "searched": GridSearchCV(make(), {"max_depth": [2]}, cv=2),
            }
            for kind, model in models.items():
                yield Case(f"{name}_{kind}_{classes}", model.fit(frame, y), rows, tolerance=TOLERANCE)
        texts = [" ".join(random.rng.choice(WORDS, 3)) for _ in range(60)]
        y = [int("red" in text) + int("old" in text) for text in texts]
        model = make_pipeline(TfidfVectorizer(), make()).fit(texts, y)
        yield Case(f"{name}_of_words", model, texts[:5], tolerance=TOLERANCE)
    yield from selections(random, size)


def selections(random, size):
    """Columns chosen by how much they count in a booster."""
    xgb = {"xgboost": xgboost.XGBClassifier, "xgboost_rf": xgboost.XGBRFRegressor}
    lgb = {"lightgbm": lightgbm.LGBMClassifier, "lightgbm_regressor": lightgbm.LGBMRegressor}
    choices = [{}, {"threshold": "median"}, {"threshold": "1.25*mean"}, {"threshold": -np.inf, "max_features": 2}]
    makers = [(name, make, ["gain", "weight", "cover", "total_gain", "total_cover"], {}) for name, make in xgb.items()]
    options = {"min_child_samples": 2, "verbose": -1}
    makers += [(name, make, ["split", "gain"], options) for name, make in lgb.items()]
    for columns in [3, 9, 140] if random.wide else [6]:
        x, y = random.classification(classes=3, columns=columns)
        x[:, 1] = x[:, 0]  # one of which never counts
        rows = random.few(columns)
        for name, make, types, options in makers:
            for number, kind in enumerate(types):
                for choice in choices if random.wide else [choices[number % len(choices)]]:
                    selector = SelectFromModel(make(**size, **options, importance_type=kind), **choice).fit(x, y)
                    yield Case(f"{name}_select_{columns}_{kind}_{choices.index(choice)}", selector, rows)
    for name, model in [("xgboost", xgboost.XGBClassifier(**size)), ("lightgbm", lightgbm.LGBMClassifier(**size, **options))]:
        model = make_pipeline(SelectFromModel(model.fit(x, y), prefit=True).fit(x, y), LogisticRegression())
        yield Case(f"{name}_select_prefit", model.fit(x, y), rows)
    yield from categories(random)
    yield from labels(random)


def labels(random):
    """What makes a classifier's predictions: margins, classes that the objective itself chose, several labels to a row."""
    x, y = random.classification(classes=3)
    few = {"n_estimators": 3, "max_depth": 3}
    rows = random.few()
    raw = xgboost.XGBClassifier(**few, objective="binary:logitraw").fit(x, (y > 0).astype(int))
    # The library's predict_proba makes no probabilities of margins.
    yield Case("xgboost_logitraw", raw, rows, ["predict"], tolerance=TOLERANCE)
    softmax = xgboost.XGBClassifier(**few, objective="multi:softmax").fit(x, y)
    yield Case("xgboost_softmax", softmax, rows, tolerance=TOLERANCE)
    several = xgboost.XGBClassifier(**few).fit(x, np.stack([y > 0, y > 1], axis=1).astype(int))
    yield Case("xgboost_labels", several, rows, tolerance=TOLERANCE)


def categories(random):
    """Columns of pandas' type category: text, numbers, an ordered and a constant one; for lightgbm also with values
    that it did not see, which xgboost refuses."""
    n = 80
    choose = lambda values: random.rng.choice(values, n).tolist()
    typed = {
        "city": pd.CategoricalDtype(["Ulm", "Bonn", "10", "St. Ives"]),
        "size": pd.CategoricalDtype(["small", "medium", "large"], ordered=True),
        "store": pd.CategoricalDtype([30, 7, 1200]),
        "country": pd.CategoricalDtype(["de"]),
    }
    frame = pd.DataFrame({"x": random.rng.normal(size=n), "y": random.rng.normal(size=n)})
    for name, dtype in typed.items():
        frame[name] = pd.Series(choose(dtype.categories.tolist())).astype(dtype)
    score = frame["x"] + frame["city"].cat.codes * (frame["store"] == 7) - frame["size"].cat.codes
    rows = frame.iloc[: 12 if random.wide else 4].copy()
    rows.loc[rows.index[0], ["city", "store"]] = None
    few = {"n_estimators": 5, "max_depth": 4}
    boosters = {
        "xgboost": xgboost.XGBRegressor(**few, enable_categorical=True, max_cat_to_onehot=1),
        "lightgbm": lightgbm.LGBMRegressor(**few, min_child_samples=2, min_data_per_group=2, cat_smooth=1, verbose=-1),
    }
    for kind, model in boosters.items():
        yield Case(f"{kind}_categories", model.fit(frame, score), rows.copy(), tolerance=TOLERANCE)
    floats = frame.assign(weight=pd.Categorical(choose([0.5, 1.25, 3.0])), old=pd.Categorical(choose([True, False])))
    floats = floats.drop(columns=["size", "country"])
    score = score + 2 * (floats["weight"] == 1.25) - (floats["old"] == True)  # noqa: E712
    unseen = floats.iloc[: len(rows)].copy()
    unseen["city"] = pd.Categorical(["Köln", *floats["city"].iloc[1 : len(rows)]])
    unseen["weight"] = pd.Categorical([9.5, *floats["weight"].iloc[1 : len(rows)]])
    yield Case("lightgbm_unseen_categories", boosters["lightgbm"].fit(floats, score), unseen, tolerance=TOLERANCE)
