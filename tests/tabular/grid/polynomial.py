"""Polynomials and splines."""

import numpy as np
from sklearn.compose import make_column_transformer
from sklearn.linear_model import Lasso
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures, SplineTransformer

from . import Case
from .impute import supported


def cases(random):
    polynomials = [
        {},
        {"degree": 3, "interaction_only": True, "include_bias": False},
        {"degree": (2, 3)},
        {"degree": (2, 2), "interaction_only": True, "include_bias": False},
    ]
    if random.wide:
        polynomials += [{"degree": (0, 4), "include_bias": False}, {"degree": 1}, {"degree": 5}, {"degree": (3, 3)}]
        polynomials += [{"degree": 6, "interaction_only": True}]
    for number, options in enumerate(polynomials):
        columns = 4
        model = PolynomialFeatures(**options).fit(random.rows(columns))
        yield Case(f"polynomial_{number}", model, random.rows(columns, rows=3))
        yield Case(f"polynomial_{number}_single", model, random.rows(columns, rows=3).astype(np.float32))
        if random.wide:
            one_hot = make_column_transformer((OneHotEncoder(), ["city", "plan"]), sparse_threshold=1)
            yield Case(f"polynomial_{number}_sparse", make_pipeline(one_hot, PolynomialFeatures(**options)).fit(random.frame()), random.frame(rows=4))

    for extrapolation in ["error", "constant", "linear", "continue", "periodic"]:
        for degree in range(1, 6) if random.wide else [3]:
            for bias in [True, False] if random.wide else [extrapolation != "linear"]:
                options = {"degree": degree, "extrapolation": extrapolation, "include_bias": bias, "n_knots": 7}
                options["knots"] = "quantile" if random.rng.random() < 0.3 else "uniform"
                if random.rng.random() < 0.4:
                    options |= supported(SplineTransformer, sparse_output=True)
                x = random.rows(columns=3, rows=30)
                rows = random.rows(columns=3, rows=6 if random.wide else 4)
                rows[0] = x.max(axis=0)
                rows[1] = x.min(axis=0)
                if extrapolation == "error":
                    rows = np.clip(rows, x.min(axis=0), x.max(axis=0))
                else:
                    rows[2] = [30, -30, 0]
                name = f"spline_{extrapolation}_{degree}_{bias}"
                yield Case(name, SplineTransformer(**options).fit(x), rows)
                if random.wide and hasattr(SplineTransformer(), "handle_missing"):
                    x[2:5, 1] = np.nan
                    rows[3, :2] = np.nan
                    if extrapolation == "error":
                        continue
                    model = SplineTransformer(**options, handle_missing="zeros").fit(x)
                    # With sparse output scikit-learn forgets to zero all columns but the first.
                    if extrapolation in ["constant", "linear"] or not options.get("sparse_output"):
                        yield Case(f"{name}_missing", model, rows)
    x, y = random.regression()
    given = SplineTransformer(knots=np.linspace([-3] * 5, [3] * 5, 4), degree=2, extrapolation="linear")
    yield Case("spline_pipeline", make_pipeline(given, Lasso(alpha=0.01)).fit(x, y), random.rows())
