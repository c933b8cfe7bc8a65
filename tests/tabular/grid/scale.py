"""Scalers of columns and rows."""

import numpy as np
import sklearn
from sklearn import preprocessing
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline

from . import INVERSE, Case


def scalers(random):
    yield preprocessing.StandardScaler()
    yield preprocessing.MinMaxScaler(feature_range=(-1, 2), clip=True)
    yield preprocessing.MaxAbsScaler()
    yield preprocessing.RobustScaler()
    if random.wide:
        yield preprocessing.StandardScaler(with_mean=False)
        yield preprocessing.StandardScaler(with_std=False)
        yield preprocessing.MinMaxScaler()
        yield preprocessing.RobustScaler(with_centering=False, quantile_range=(10, 80))
        yield preprocessing.RobustScaler(with_scaling=False, unit_variance=True)
        if hasattr(preprocessing.MaxAbsScaler(), "clip"):
            yield preprocessing.MaxAbsScaler(clip=True)


def cases(random):
    for number, scaler in enumerate(scalers(random)):
        x = random.rows(rows=30, missing=0.1)
        yield Case(f"{number}", scaler.fit(x), random.rows(rows=5, missing=0.2))
        if random.wide or number == 0:
            # The scale of singles is single too.
            x = random.rows(rows=30, missing=0.1).astype(np.float32)
            scaler = type(scaler)(**scaler.get_params()).fit(x if random.rng.random() < 0.5 else x.astype(float))
            yield Case(f"{number}_single", scaler, random.rows(rows=5, missing=0.1).astype(np.float32))
    for norm in ["l1", "l2", "max"]:
        rows = random.rows(rows=4)
        rows[1] = 0
        yield Case(f"normalizer_{norm}", preprocessing.Normalizer(norm=norm).fit(rows), rows)
    yield Case("binarizer", preprocessing.Binarizer(threshold=0.3).fit(random.rows()), random.rows(rows=4))
    # Sparse matrices between steps.
    frame = random.frame()
    steps = [
        preprocessing.StandardScaler(with_mean=False),
        preprocessing.MaxAbsScaler(),
        preprocessing.RobustScaler(with_centering=False),
        preprocessing.Normalizer(),
        preprocessing.Normalizer(norm="l1"),
        preprocessing.Normalizer(norm="max"),
        preprocessing.Binarizer(threshold=0.5),
    ]
    for number, step in enumerate(steps if random.wide else []):
        if sklearn.__version__ < "1.2" and (number == 1 or number == 5):
            continue  # needs a scipy that is gone
        columns = make_column_transformer((preprocessing.OneHotEncoder(handle_unknown="ignore"), ["city", "plan", "visits"]))
        yield Case(f"sparse_{number}", make_pipeline(columns, step).fit(frame), random.frame(rows=8))
    for number, scaler in enumerate(scalers(random)):
        yield Case(f"{number}_inverse", scaler.fit(random.rows()), random.rows(rows=4), INVERSE)
