"""`FunctionTransformer` and what it comes before."""

import numpy as np
from lightgbm import LGBMClassifier
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.feature_selection import VarianceThreshold
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.tree import DecisionTreeRegressor

from . import Case
from .encode import sparse_output

FUNCTIONS = """abs arcsinh arctan cbrt ceil cos cosh deg2rad exp exp2 expm1 fabs floor isfinite isnan log log10 log1p
    log2 nan_to_num negative positive rad2deg radians reciprocal rint round sign sin sinh sqrt square tan tanh
    trunc fix""".split()


def cases(random):
    x = random.rows(rows=6)
    for name in FUNCTIONS if random.wide else ["log1p", "sqrt", "sign", "rint"]:
        rows = np.where(np.abs(x) < 0.4, 0, x)
        yield Case(name, FunctionTransformer(getattr(np, name)).fit(rows), rows)
    yield from integers(random)
    for dtype in ["int64", "int32", "int8"]:
        rows = np.array([[0, 1, -1, 2, -3], [5, 7, 1, 0, 1]], dtype)
        yield Case(f"reciprocal_{dtype}", FunctionTransformer(np.reciprocal).fit(rows), rows)
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
    yield from passed(random)
    yield from frames(random)


def unnamed(frame, rows):
    """Columns that are passed on behind others of which nobody knows how many they become."""
    log = ("log", FunctionTransformer(np.log1p), ["income"])
    words = ("words", HashingVectorizer(n_features=8), "city")
    text = ("text", OneHotEncoder(), ["plan"])
    numbers = ["age", "income", "visits"]
    for name, parts, remainder, weights in [
        ("log", [log], "passthrough", None),
        ("words", [words, ("as", FunctionTransformer(), numbers)], "drop", None),
        ("weighted", [("as", "passthrough", ["age"]), ("same", FunctionTransformer(), ["visits"]), text], "drop", {"as": 2, "same": 0.5}),
        ("selected", [("some", VarianceThreshold(), ["age", "visits"]), text], "drop", {"some": 3}),
        ("remainder", [text], "passthrough", {"remainder": 0.25}),
        ("union", [("both", FeatureUnion([log[:2], ("as", "passthrough")]), ["income"])], "passthrough", None),
    ]:
        columns = ColumnTransformer(parts, remainder=remainder, transformer_weights=weights)
        given = numbers if name in ["log", "union"] else [each for each in frame if each != "city" or name != "remainder"]
        yield Case(f"unnamed_{name}", columns.fit(frame[given]), rows[given])
        model = make_pipeline(columns, DecisionTreeRegressor(random_state=0)).fit(frame[given], frame["age"])
        yield Case(f"unnamed_{name}_tree", model, rows[given])
    # As 1.0 and 1.1 leave it.
    model = make_pipeline(FunctionTransformer(), ColumnTransformer([("age", StandardScaler(), ["age"]), text]))
    model.set_params(columntransformer__remainder="drop").fit(frame)
    if hasattr(model[0], "feature_names_in_"):
        del model[0].feature_names_in_
    yield Case("unnamed_first", make_pipeline(model, DecisionTreeRegressor(random_state=0)).fit(frame, frame["income"]), rows)
    if hasattr(model[0], "feature_names_in_"):
        del model[0].feature_names_in_
    yield Case("nothing", ColumnTransformer([("none", "drop", ["age"])]).fit(frame[["age"]]), rows[["age"]])


def integers(random):
    """Functions of integers, which give integers or floats as wide as they are."""
    for name in FUNCTIONS if random.wide else ["negative", "square", "exp"]:
        for dtype in ["int64", "int32", "int16", "int8", "uint8", "uint32"] if random.wide else ["int64", "int8", "int16"]:
            rows = np.array([[0, 1, 2, 7, 3], [90, 11, 1, 0, 1]]).astype(dtype)
            if dtype == "int32":
                rows[0, 0] = 70_000
            rows = rows if name in ["exp", "exp2", "expm1", "cosh", "sinh"] and dtype == "int8" else rows
            tolerance = {1: 2e-3, 2: 1e-6}.get(rows.itemsize, 1e-12)
            case = Case(f"{name}_{dtype}", FunctionTransformer(getattr(np, name)).fit(rows), rows, tolerance=tolerance)
            answer = case.model.transform(rows)
            if answer.dtype == np.float16:  # which no protocol has
                case.answers, case.methods = {"transform": answer.astype(float)}, ["transform"]
            yield case


def frames(random):
    frame = random.frame(rows=5)[["visits", "age"]]
    for function in [np.reciprocal, np.exp, np.square]:
        model = FunctionTransformer(function).fit(frame)
        answers = {"transform": np.asarray(model.transform(frame))}
        yield Case(f"{function.__name__}_frame", model, frame, ["transform"], answers=answers)


def passed(random):
    """Text that reaches an encoder, or a model of categories, through steps that leave it as it is."""
    frame, rows = random.frame(), random.frame(rows=5)
    columns = ["city", "plan"]
    one_hot = OneHotEncoder(**sparse_output(False))
    same = make_pipeline(FunctionTransformer(), one_hot)
    yield Case("passed_same", same.fit(frame[columns]), rows[columns])
    scaled = ("scaled", StandardScaler(), ["age", "income"])
    swapped = ColumnTransformer([scaled, ("plan", "passthrough", ["plan"]), ("city", FunctionTransformer(), ["city"])])
    encoded = ColumnTransformer([("text", one_hot, [2, 3])], remainder="passthrough")
    yield Case("passed_columns", make_pipeline(swapped, encoded, LinearRegression()).fit(frame, frame["age"]), rows)
    union = FeatureUnion([("as", FunctionTransformer()), ("again", FunctionTransformer())])
    yield Case("passed_union", make_pipeline(union, one_hot).fit(frame[columns]), rows[columns])
    dropped = FeatureUnion([("columns", ColumnTransformer([scaled]))])
    yield Case("dropped_union", make_pipeline(dropped, LinearRegression()).fit(frame, frame["age"]), rows)
    numbers = ColumnTransformer([("numbers", StandardScaler(), [0, 1])])
    later = make_pipeline(FunctionTransformer(), swapped, numbers, LinearRegression())
    yield Case("dropped_later", later.fit(frame, frame["visits"]), rows)
    yield from unnamed(frame, rows)
    if not hasattr(union, "set_output"):
        return
    named = ColumnTransformer([("plan", OrdinalEncoder(), ["plan"]), scaled], remainder="passthrough")
    named.set_output(transform="pandas")
    encoded = ColumnTransformer([("city", one_hot, ["remainder__city"]), ("age", "passthrough", ["scaled__age"])])
    yield Case("passed_names", make_pipeline(named, encoded, LinearRegression()).fit(frame, frame["age"]), rows)
    frame, rows = (each.astype({name: "category" for name in columns}) for each in [frame, rows])
    kept = ColumnTransformer([scaled], remainder="passthrough").set_output(transform="pandas")
    model = LGBMClassifier(n_estimators=4, min_child_samples=3, min_data_per_group=1, cat_smooth=1, verbose=-1)
    target = (frame["city"].isin(["Ulm", "Bonn"]) ^ (frame["plan"] == "plus")).astype(int)
    yield Case("passed_categories", make_pipeline(kept, model).fit(frame, target), rows)
