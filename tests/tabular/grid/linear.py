"""Linear models, and the pipelines that are mostly before them."""

from sklearn import linear_model
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from . import Case


def cases(random):
    for classes in [2, 3]:
        x, y = random.classification(classes=classes)
        yield Case(f"LogisticRegression_{classes}", linear_model.LogisticRegression().fit(x, y), random.rows())
        model = linear_model.SGDClassifier(loss="modified_huber", random_state=random.seed32())
        yield Case(f"SGDClassifier_{classes}", model.fit(x, y), random.rows())
    x, y = random.regression()
    for model in [linear_model.LinearRegression(), linear_model.Ridge(), linear_model.Lasso(alpha=0.01)]:
        yield Case(type(model).__name__, model.fit(x, y), random.rows())
    model = make_pipeline(StandardScaler(), linear_model.LinearRegression())
    yield Case("Pipeline", model.fit(x, y), random.rows())
    columns = ColumnTransformer([("scaled", StandardScaler(), [0, 3])], remainder="passthrough")
    yield Case("ColumnTransformer", make_pipeline(columns, linear_model.Ridge()).fit(x, y), random.rows())
