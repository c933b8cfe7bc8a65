"""Powers and quantiles."""

import numpy as np
from sklearn.preprocessing import OneHotEncoder, PowerTransformer, QuantileTransformer, StandardScaler
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline

from . import INVERSE, Case


def cases(random):
    for standardize in [True, False]:
        x = random.rows(rows=40, missing=0.1)
        model = PowerTransformer(standardize=standardize).fit(x)
        yield Case(f"yeo_johnson_{standardize}", model, random.rows(rows=4, missing=0.1))
        yield Case(f"yeo_johnson_{standardize}_inverse", model, random.rows(rows=4), INVERSE)
        model = PowerTransformer("box-cox", standardize=standardize).fit(np.exp(x))
        yield Case(f"box_cox_{standardize}", model, np.exp(random.rows(rows=4, missing=0.1)))
        yield Case(f"box_cox_{standardize}_inverse", model, random.rows(rows=4) * 0.3, INVERSE)
    for number, lambdas in enumerate([[0.0, 2.0, 1.0, -1.5, 3.0], [2.0, 0.0, 0.5, 1e-17, 2.0]] if random.wide else []):
        model = PowerTransformer(standardize=False).fit(random.rows(rows=40))
        model.lambdas_ = np.array(lambdas)
        yield Case(f"lambdas_{number}", model, random.rows())
        yield Case(f"lambdas_{number}_inverse", model, random.rows() * 0.1, INVERSE)
        # Powers of singles are taken in singles.
        yield Case(f"lambdas_{number}_single", model, random.rows().astype(np.float32), tolerance=1e-6)
    for distribution in ["uniform", "normal"]:
        for number in range(6 if random.wide else 1):
            x, rows = random.rows(rows=50, missing=0.1), random.rows(rows=10 if random.wide else 5, missing=0.1)
            if number % 2:
                x, rows = np.round(x), np.round(rows)  # ties
            rows[:4] = x[:4]
            quantiles = int(random.rng.integers(2, 60)) if random.wide else 10
            model = QuantileTransformer(n_quantiles=quantiles, output_distribution=distribution, subsample=10**6).fit(x)
            # The normal distribution's functions are steep at its ends.
            tolerance = 1e-12 if distribution == "uniform" else 1e-9
            yield Case(f"quantile_{distribution}_{number}", model, rows, tolerance=tolerance)
            if random.wide:
                single = rows.astype(np.float32)
                yield Case(f"quantile_{distribution}_{number}_single", model, single, tolerance=1e-5)
            places = random.rng.random((6, 5)) if distribution == "uniform" else random.rows(rows=6)
            places[0], places[1] = (0, 1) if distribution == "uniform" else (-9, 9)
            yield Case(f"quantile_{distribution}_{number}_inverse", model, places, INVERSE, tolerance)
        if random.wide:
            one_hot = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["city", "visits"]), (StandardScaler(with_mean=False), ["age"]), sparse_threshold=1)
            for ignore in [True, False]:
                quantiles = QuantileTransformer(n_quantiles=5, output_distribution=distribution, ignore_implicit_zeros=ignore)
                model = make_pipeline(one_hot, quantiles).fit(random.frame())
                yield Case(f"quantile_{distribution}_sparse_{ignore}", model, random.frame(rows=6))
