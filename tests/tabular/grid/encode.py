"""Encoders of categories: text, numbers, bools, and the missing among them."""

import numpy as np
import pandas as pd
import sklearn
from sklearn import preprocessing
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline

from . import Case
from .impute import supported


def frames(random, rows):
    """Columns of every type that categories have."""
    pick = random.rng.choice
    frame = pd.DataFrame({
        "text": pick(["a", "b", "c", "dd", "Ä"], rows, p=[0.4, 0.3, 0.2, 0.05, 0.05]).astype(object),
        "maybe": pd.Series(pick(np.array(["x", "y", None], dtype=object), rows), dtype=object),
        "nan": pd.Series(pick(np.array(["x", "y", np.nan], dtype=object), rows), dtype=object),
        "integer": pick([1, 2, 3, 40], rows, p=[0.5, 0.3, 0.1, 0.1]),
        "bool": pick([True, False], rows),
        "number": pick([0.5, 1.25, np.nan, -0.0], rows),
        "objects": pd.Series(pick(np.array([1, 2, 3], dtype=object), rows), dtype=object),
    })
    for column, values in {"text": ["a", "b", "c", "dd", "Ä"], "integer": [1, 2, 3, 40]}.items():
        frame.loc[: len(values) - 1, column] = values  # each of them occurs
    return frame


def sparse_output(sparse):
    encoder = preprocessing.OneHotEncoder()
    return {"sparse_output" if hasattr(encoder, "sparse_output") else "sparse": sparse}


def one_hots(random):
    yield {}
    yield {"drop": "first", **sparse_output(False)}
    yield {"drop": "if_binary", "dtype": np.float32}
    if hasattr(preprocessing.OneHotEncoder(), "min_frequency"):
        yield {"min_frequency": 0.15, "handle_unknown": "infrequent_if_exist"}
        yield {"max_categories": 2, "handle_unknown": "infrequent_if_exist", "drop": "first", **sparse_output(False)}
        yield {"max_categories": 3, "handle_unknown": "ignore", "drop": "if_binary"}
        if random.wide:
            yield {"max_categories": 2, "handle_unknown": "infrequent_if_exist", "drop": "if_binary"}
            yield {"min_frequency": 9, "handle_unknown": "error", "drop": "first"}
            if sklearn.__version__ >= "1.6":
                yield {"min_frequency": 9, "handle_unknown": "warn"}


def ordinals(random):
    encoder = preprocessing.OrdinalEncoder
    yield {}
    yield {"handle_unknown": "use_encoded_value", "unknown_value": -1}
    yield {"handle_unknown": "use_encoded_value", "unknown_value": np.nan, **supported(encoder, encoded_missing_value=-2)}
    if hasattr(encoder(), "min_frequency"):
        yield {"min_frequency": 0.15, "handle_unknown": "use_encoded_value", "unknown_value": -1}
        yield {"max_categories": 3, "handle_unknown": "error", "encoded_missing_value": -1}
        yield {"max_categories": 2, "handle_unknown": "use_encoded_value", "unknown_value": 99, "dtype": np.float32}


def unknowns(options, rows):
    """Where they are allowed, values that were not seen."""
    if options.get("handle_unknown", "error") != "error":
        rows.loc[0, ["text", "maybe", "nan", "objects"]] = ["new", "new", "new", 9]
        rows.loc[1, ["text", "maybe", "integer", "number"]] = ["", None, 7, 3.5]
        rows.loc[2, ["nan"]] = "a very long one that is new"
    return rows


def cases(random):
    for encoder, choices in [(preprocessing.OneHotEncoder, one_hots), (preprocessing.OrdinalEncoder, ordinals)]:
        for number, options in enumerate(choices(random)):
            model = encoder(**options).fit(frames(random, 60))
            rows = unknowns(options, frames(random, 8))
            yield Case(f"{encoder.__name__}_{number}", model, rows)
            # numpy's arrays of text, of objects and of numbers.
            for columns in [["text"], ["text", "integer"], ["integer", "number"], ["bool"]] if random.wide else []:
                as_array = lambda frame: frame[columns].to_numpy(str if columns == ["text"] else None)
                model = encoder(**options).fit(as_array(frames(random, 60)))
                yield Case(f"{encoder.__name__}_{number}_{'_'.join(columns)}", model, as_array(frames(random, 8)))
    given = preprocessing.OneHotEncoder(categories=[["b", "a", "zz"]], handle_unknown="ignore", drop=None)
    yield Case("OneHotEncoder_given", given.fit(frames(random, 20)[["text"]]), frames(random, 8)[["text"]])
    dropped = preprocessing.OneHotEncoder(drop=["b", 3])
    yield Case("OneHotEncoder_drop", dropped.fit(frames(random, 60)[["text", "integer"]]),
               frames(random, 8)[["text", "integer"]])

    if hasattr(preprocessing, "TargetEncoder"):
        targets = {
            "continuous": random.rng.normal(size=60),
            "binary": random.rng.choice(["no", "yes"], 60),
        }
        if sklearn.__version__ >= "1.4":
            targets["multiclass"] = random.rng.choice(["a", "b", "c"], 60)
        for kind, y in targets.items():
            smooth = "auto" if random.rng.random() < 0.5 else 5.0
            model = preprocessing.TargetEncoder(random_state=0, smooth=smooth).fit(frames(random, 60), y)
            yield Case(f"TargetEncoder_{kind}", model, unknowns({"handle_unknown": "ignore"}, frames(random, 8)))

    frame = frames(random, 60)
    y = random.rng.normal(size=60)
    columns = make_column_transformer(
        (preprocessing.OneHotEncoder(handle_unknown="ignore"), ["text", "nan"]),
        (preprocessing.OrdinalEncoder(), ["integer", "bool"]),
        ("passthrough", ["integer"]),
    )
    yield Case("frame", make_pipeline(columns, LinearRegression()).fit(frame, y), frames(random, 8))

    # Types of what comes out, and what numpy makes of several.
    one_hot, ordinal = preprocessing.OneHotEncoder, preprocessing.OrdinalEncoder
    dense = sparse_output(False)
    typed = {
        "int32": one_hot(dtype=np.int32),
        "bool": one_hot(dtype=bool, **dense),
        "single": one_hot(dtype="float32"),
        "int16": ordinal(dtype="int16"),
    }
    for name, encoder in typed.items():
        yield Case(f"typed_{name}", encoder.fit(frame[["text", "integer"]]), frames(random, 5)[["text", "integer"]])
    together = {
        "integers": (ordinal(dtype=np.int64), one_hot(dtype=bool, **dense)),
        "numbers": (ordinal(dtype=np.int32), one_hot(**dense)),
        "singles": (ordinal(dtype=np.float32), one_hot(dtype=np.float32, **dense)),
        "mixed": (ordinal(dtype=np.int64), one_hot(dtype=np.float32, **dense)),
    }
    for name, (first, second) in together.items():
        columns = make_column_transformer((first, ["integer"]), (second, ["text"]))
        yield Case(f"together_{name}", columns.fit(frame), frames(random, 5))
    columns = make_column_transformer(("passthrough", ["integer"]), (one_hot(dtype=np.int64, **dense), ["text"]))
    yield Case("together_passed", columns.fit(frame), frames(random, 5).astype({"integer": float}))
