"""Bins."""

import numpy as np
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer

from . import INVERSE, Case


def cases(random):
    for encode in ["onehot", "onehot-dense", "ordinal"]:
        for strategy in ["uniform", "quantile", "kmeans"] if random.wide else ["quantile"]:
            bins = random.rng.integers(2, 7, 5) if random.wide else 3
            x, rows = random.rows(rows=40), random.rows(rows=10 if random.wide else 4)
            rows[:3] = x[:3]
            model = KBinsDiscretizer(bins, encode=encode, strategy=strategy).fit(x)
            yield Case(f"{encode}_{strategy}", model, rows)
            if random.wide:
                edges = np.stack([np.resize(edges, 8) for edges in model.bin_edges_], axis=1)
                yield Case(f"{encode}_{strategy}_edges", model, edges)
                model = KBinsDiscretizer(bins, encode=encode, strategy=strategy, dtype=np.float32).fit(x)
                yield Case(f"{encode}_{strategy}_single", model, rows.astype(np.float32))
    x, y = random.regression()
    columns = make_column_transformer((KBinsDiscretizer(3), [0, 2]), remainder="passthrough")
    yield Case("pipeline", make_pipeline(columns, LinearRegression()).fit(x, y), random.rows())
    x = random.rows(rows=40)
    model = KBinsDiscretizer(3, encode="ordinal", dtype=np.float64).fit(x)
    yield Case("typed", model, x[:3].astype(np.float32))
    # Numbers that are not quite those of a bin, and one that counts from the end.
    bins = np.array([[0.0, 1.9, 2.0, -0.9, -1.2], [1.0, 0.0, 0.5, 2.9, 2.0]])
    for encode in ["ordinal", "onehot-dense"]:
        model = KBinsDiscretizer(3, encode=encode).fit(x)
        rows = bins if encode == "ordinal" else random.rows(columns=15, rows=3)
        yield Case(f"{encode}_inverse", model, rows, INVERSE)
        if encode == "ordinal":
            yield Case(f"{encode}_inverse_single", model, rows.astype(np.float32), INVERSE, tolerance=1e-7)
