"""Fitted estimators with what their library answers: what stoker must answer too.

    python -m grid DIR [--families linear,trees] [--seed N] [--wide]

writes DIR/NAME/model.joblib and DIR/NAME/case.json for each case. The small grid is committed (tests/tabular/cases);
the wide one is made anew in `make e2e`, with random seeds and the newest libraries.
"""

import json
import math
import os
from dataclasses import dataclass, field

import joblib
import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.pipeline import Pipeline

METHODS = ["predict", "predict_proba", "decision_function", "transform"]
# Of the transformers that targets go through; rows are then what comes out of `transform`.
INVERSE = ["inverse_transform"]


@dataclass
class Case:
    """One fitted model, rows to ask it about, and the methods to compare."""

    name: str
    model: object
    rows: object  # a numpy array, a matrix of scipy, a DataFrame, or a list of str
    methods: list = field(default_factory=lambda: list(METHODS))
    tolerance: float = 1e-12
    # By method, where the library's own form of the answer is not what a server gives.
    answers: dict = None
    protocol: int = None  # the pickle's


class Random:
    """Where a family's cases get their data from. `wide` asks for many cases, of changing shapes and options."""

    def __init__(self, seed, wide):
        self.seed, self.wide = seed, wide
        self.rng = np.random.default_rng(seed)

    def regression(self, rows=60, columns=5):
        x = self.rng.normal(size=(rows, columns))
        y = x @ self.rng.normal(size=columns) + np.sin(3 * x[:, 0]) + self.rng.normal(size=rows) * 0.1
        return x, y

    def classification(self, rows=60, columns=5, classes=3):
        x = self.rng.normal(size=(rows, columns))
        score = x @ self.rng.normal(size=(columns, classes)) + self.rng.normal(size=(rows, classes)) * 0.3
        y = score.argmax(axis=1)
        # Every class occurs; where seeds are many, often enough to be cut into folds.
        often = np.tile(np.arange(classes), 6 if self.wide else 1)[: len(y)]
        y[: len(often)] = often
        return x, y

    def rows(self, columns=5, rows=10, missing=0.0):
        """Rows to predict: also beyond what was trained on."""
        x = self.rng.normal(size=(rows, columns)) * 1.5
        if missing:
            x[self.rng.random(x.shape) < missing] = np.nan
        return x

    def few(self, columns=5):
        """Rows to predict: as few as tell right from wrong in the small grid, which is committed."""
        return self.rows(columns, 10 if self.wide else 3)

    def thin(self, x):
        """A sparse matrix of half of the values."""
        return sparse.csr_matrix(x * (self.rng.random(x.shape) < 0.5))

    def frame(self, rows=60, missing=0.0):
        """Mixed columns, as a data scientist's: numbers, text, bools, integers."""
        frame = pd.DataFrame({
            "age": self.rng.integers(18, 80, rows).astype(float),
            "income": np.round(self.rng.lognormal(10, 1, rows), 2),
            "city": self.rng.choice(["Berlin", "Köln", "Ulm", "Bonn"], rows).astype(object),
            "plan": self.rng.choice(["basic", "plus"], rows).astype(object),
            "visits": self.rng.integers(0, 9, rows),
        })
        if missing:
            for column in ["age", "income", "city"]:
                frame.loc[self.rng.random(rows) < missing, column] = None if column == "city" else np.nan
        return frame

    def seed32(self):
        return int(self.rng.integers(0, 2**31))


def repeated(random, family):
    """The cases of a family, several times over in the wide grid."""
    for repeat in range(3 if random.wide else 1):
        for case in family(random):
            case.name += f"_{repeat}" if random.wide else ""
            yield case


def plain(value):
    """As JSON has it: NaN is null, infinities are words."""
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "toarray"):
        return plain(value.toarray())
    if isinstance(value, pd.DataFrame):
        return plain(value.to_numpy())
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return value


def names(model):
    """What columns are called before and after a transformation, where the model can say."""
    try:
        out = model.get_feature_names_out()
    except (AttributeError, NotImplementedError, ValueError):
        return None
    given = getattr(model, "feature_names_in_", None)
    if given is None:
        given = [f"x{column}" for column in range(getattr(model, "n_features_in_", 1))]
    return {"in": list(given), "out": list(out)}


def write(case, folder):
    target = os.path.join(folder, case.name)
    os.makedirs(target, exist_ok=True)
    joblib.dump(case.model, os.path.join(target, "model.joblib"), compress=("gzip", 9), protocol=case.protocol)
    answers = {}
    for method in case.methods:
        if case.answers or hasattr(case.model, method):
            answer = case.answers[method] if case.answers else getattr(case.model, method)(case.rows)
            dtype = "many" if isinstance(answer, list) else str(getattr(answer, "dtype", ""))
            answers[method] = {"dtype": dtype, "values": plain(answer)}
    assert answers, f"{case.name} answers to nothing"
    if isinstance(case.rows, pd.DataFrame):
        rows = {"columns": [{"name": name, "values": plain(case.rows[name].tolist())} for name in case.rows]}
        for column, dtype in zip(rows["columns"], case.rows.dtypes):
            column |= {"integers": str(dtype)} if dtype.kind in "iu" else {}
    elif isinstance(case.rows, np.ndarray) and case.rows.dtype.kind in "OUb":
        rows = {"columns": [{"name": None, "values": plain(column)} for column in case.rows.T]}
    elif isinstance(case.rows, list):
        rows = {"text": case.rows}
    else:
        kind = {"single": case.rows.dtype == np.float32, "sparse": sparse.issparse(case.rows)}
        if case.rows.dtype.kind in "iu":
            kind["integers"] = str(case.rows.dtype)
        rows = {"matrix": plain(case.rows), **kind}
    with open(os.path.join(target, "case.json"), "w") as out:
        kind = type(case.model).__name__
        content = {"class": kind, "rows": rows, "tolerance": case.tolerance, "answers": answers}
        is_explained = "shap_values" in answers and isinstance(case.model, Pipeline)
        known = names(case.model[:-1] if is_explained else case.model)
        # KNNImputer forgets to name columns that it keeps though they are empty.
        widths = np.shape(answers["transform"]["values"])[1:] if "transform" in answers else None
        if known and (is_explained or (len(known["out"]),) == widths):
            content["names"] = known
        json.dump(content, out, ensure_ascii=False)
        out.write("\n")
