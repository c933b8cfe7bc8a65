"""xgboost's and lightgbm's scikit-learn classes, alone and inside of scikit-learn's estimators."""

import lightgbm
import pandas as pd
import xgboost
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import BaggingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline

from . import Case

WORDS = ["red", "green", "blue", "old", "new", "wide"]
# Their probabilities are f32.
TOLERANCE = 1e-6


def cases(random):
    size = {"n_estimators": 20 if random.wide else 3, "max_depth": 3}
    kinds = {
        "xgboost": lambda: xgboost.XGBClassifier(**size),
        "lightgbm": lambda: lightgbm.LGBMClassifier(**size, min_child_samples=2, verbose=-1),
    }
    for name, make in kinds.items():
        for classes in [2, 3]:
            x, y = random.classification(classes=classes, columns=3)
            frame = pd.DataFrame(x, columns=["a", "b", "c"])
            rows = pd.DataFrame(random.few(3), columns=["a", "b", "c"])
            models = {
                "alone": make(),
                "passed_to": make_pipeline("passthrough", make()),
                "one_vs_rest": OneVsRestClassifier(make()),
                "calibrated": CalibratedClassifierCV(make(), cv=2, ensemble=False),
                "bagged": BaggingClassifier(make(), n_estimators=2, random_state=0),
                "searched": GridSearchCV(make(), {"max_depth": [2]}, cv=2),
            }
            for kind, model in models.items():
                yield Case(f"{name}_{kind}_{classes}", model.fit(frame, y), rows, tolerance=TOLERANCE)
        texts = [" ".join(random.rng.choice(WORDS, 3)) for _ in range(60)]
        y = [int("red" in text) + int("old" in text) for text in texts]
        model = make_pipeline(TfidfVectorizer(), make()).fit(texts, y)
        yield Case(f"{name}_of_words", model, texts[:5], tolerance=TOLERANCE)
