"""Histogram gradient boosting, with missing values and categories."""

import numpy as np
import sklearn
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from . import Case

VERSION = tuple(int(part) for part in sklearn.__version__.split(".")[:2])


def options(random):
    if not random.wide:
        return {"max_iter": 2, "max_leaf_nodes": 4, "min_samples_leaf": 3, "max_bins": 16, "random_state": random.seed32()}
    rng = random.rng
    return {
        "max_iter": int(rng.integers(1, 30)),
        "max_leaf_nodes": int(rng.integers(2, 40)),
        "min_samples_leaf": int(rng.integers(1, 10)),
        "max_bins": int(rng.choice([4, 30, 255])),
        "learning_rate": float(rng.choice([0.05, 0.1, 1.0])),
        "random_state": random.seed32(),
    }


def with_codes(random, rows, unknown=False, missing=0.0):
    """Numbers, and two columns of small integers."""
    x = random.rng.normal(size=(rows, 5))
    x[:, 1] = random.rng.integers(0, 5 + 3 * unknown, rows)
    x[:, 3] = random.rng.integers(0, 70 + 90 * unknown, rows)
    if missing:
        x[random.rng.random(x.shape) < missing] = np.nan
    return x


def outcome(x):
    """Depends on the codes too."""
    return np.nan_to_num(x[:, 0]) + np.sin(np.nan_to_num(x[:, 3]) * 5) * 2 + np.nan_to_num(x[:, 1]) % 3


def cases(random):
    for repeat in range(3 if random.wide else 1):
        end = f"_{repeat}" if random.wide else ""
        yield from numeric(random, end)
        yield from categorical(random, end)


def numeric(random, end):
    size = int(random.rng.integers(30, 300)) if random.wide else 60
    for classes in [2, 3]:
        x, y = random.classification(rows=size, classes=classes)
        y = np.array(["a", "b", "c"])[y] if classes == 3 else y
        model = HistGradientBoostingClassifier(**options(random)).fit(x, y)
        yield Case(f"Classifier_{classes}{end}", model, random.rows(rows=10 if random.wide else 5))
        x[random.rng.random(x.shape) < 0.2] = np.nan
        model = HistGradientBoostingClassifier(**options(random)).fit(x, y)
        rows = random.rows(missing=0.3, rows=40 if random.wide else 12)
        rows[0, 0] = np.inf
        yield Case(f"Classifier_{classes}_missing{end}", model, rows)
    losses = ["squared_error", "absolute_error", "poisson"]
    losses += ["quantile"] if VERSION >= (1, 1) else []
    losses += ["gamma"] if VERSION >= (1, 3) else []
    for loss in losses:
        x, y = random.regression(rows=size)
        y = np.exp(y / 4) if loss in ["poisson", "gamma"] else y
        quantile = {"quantile": 0.8} if loss == "quantile" else {}
        model = HistGradientBoostingRegressor(loss=loss, **quantile, **options(random)).fit(x, y)
        few = 20 if random.wide else 4
        rows = np.concatenate([random.rows(rows=few), x[:few]])  # thresholds lie between the values of x
        yield Case(f"Regressor_{loss}{end}", model, rows.astype(np.float32) if loss == "poisson" else rows)


def categorical(random, end):
    for missing in [0.0, 0.2]:
        x = with_codes(random, 200 if random.wide else 80, missing=missing)
        extra = {"categorical_features": [1, 3], **options(random), "max_bins": 255}
        rows = with_codes(random, 40 if random.wide else 12, unknown=True, missing=0.1)
        kind = "_missing" if missing else ""
        y = outcome(x)
        yield Case(f"Regressor_codes{kind}{end}", HistGradientBoostingRegressor(**extra).fit(x, y), rows)
        y = np.digitize(y, [0, 1.5])
        yield Case(f"Classifier_codes{kind}{end}", HistGradientBoostingClassifier(**extra).fit(x, y), rows)
    if VERSION >= (1, 4):
        frame = random.frame(rows=120, missing=0.1)
        y = np.nan_to_num(frame["age"]) + 20 * (frame["city"] == "Ulm") - 9 * (frame["plan"] == "plus")
        rows = random.frame(rows=30 if random.wide else 8, missing=0.2)
        rows.loc[3, "city"] = "Rom"
        masks = [["city", "plan"], [False, False, True, True, True]]
        for number, mask in enumerate(masks if random.wide else masks[1:]):
            extra = {**options(random), "max_bins": 255, "categorical_features": mask}
            model = HistGradientBoostingRegressor(**extra).fit(frame, y)
            yield Case(f"Regressor_frame_{number}{end}", model, rows)
        typed = frame.astype({"city": "category", "plan": "category"})
        model = HistGradientBoostingRegressor(categorical_features="from_dtype", **options(random)).fit(typed, y)
        yield Case(f"Regressor_from_dtype{end}", model, rows.astype({"city": "category", "plan": "category"}))
    one = HistGradientBoostingClassifier(**options(random)).fit(x, np.full(len(x), 3))
    yield Case("Classifier_one_class", one, random.rows(rows=3))
