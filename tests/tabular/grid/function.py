"""`FunctionTransformer` and what it comes before."""

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from . import Case

FUNCTIONS = """abs arcsinh arctan cbrt ceil cos cosh deg2rad exp exp2 expm1 fabs floor isfinite isnan log log10 log1p
    log2 nan_to_num negative positive rad2deg radians reciprocal rint round sign sin sinh sqrt square tan tanh
    trunc fix""".split()


def cases(random):
    x = random.rows(rows=6)
    for name in FUNCTIONS if random.wide else ["log1p", "sqrt", "sign", "rint"]:
        rows = np.where(np.abs(x) < 0.4, 0, x)
        yield Case(name, FunctionTransformer(getattr(np, name)).fit(rows), rows)
    yield Case("validate", FunctionTransformer(np.square, np.sqrt, validate=True).fit(x), x.astype(np.float32))
    yield Case("identity", FunctionTransformer().fit(x), x)
    x, y = random.regression()
    union = FeatureUnion(
        [("log", make_pipeline(FunctionTransformer(np.abs), FunctionTransformer(np.log1p))), ("as", FunctionTransformer())],
        transformer_weights={"log": 2.0},
    )
    yield Case("union", make_pipeline(union, LinearRegression()).fit(x, y), random.rows())
    frame = random.frame()
    columns = ColumnTransformer(
        [("log", FunctionTransformer(np.log1p), ["income"]), ("scaled", StandardScaler(), ["age"])],
        remainder="passthrough",
    )
    columns.fit(frame)
    yield Case("text", columns, random.frame(rows=5))
    x = random.rows(rows=4, missing=0.3)
    for name in ["isnan", "signbit"]:
        yield Case(name, FunctionTransformer(getattr(np, name)).fit(x), x)
