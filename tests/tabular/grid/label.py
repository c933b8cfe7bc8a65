"""Encoders of labels."""

import numpy as np
from sklearn.preprocessing import LabelBinarizer, LabelEncoder

from . import Case


def cases(random):
    labels = {
        "text": np.array(["ulm", "bonn", "köln"], dtype=object),
        "numbers": np.array([3, 1, 7]),
        "two": np.array(["no", "yes"], dtype=object),
    }
    for name, classes in labels.items():
        seen = np.concatenate([classes, random.rng.choice(classes, 20)])
        asked = random.rng.choice(classes, 5)
        rows = list(asked) if asked.dtype == object else asked.reshape(-1, 1).astype(float)
        for model in [LabelEncoder(), LabelBinarizer(neg_label=-1, pos_label=2)]:
            case = Case(f"{type(model).__name__}_{name}", model.fit(seen), rows, ["transform"])
            case.answers = {"transform": model.transform(asked)}
            yield case
