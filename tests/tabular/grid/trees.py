"""Decision trees, forests and gradient boosting."""

import numpy as np
from sklearn import ensemble, linear_model, tree

from . import Case

CLASSIFIERS = [
    tree.DecisionTreeClassifier,
    tree.ExtraTreeClassifier,
    ensemble.RandomForestClassifier,
    ensemble.ExtraTreesClassifier,
    ensemble.GradientBoostingClassifier,
]
REGRESSORS = [
    tree.DecisionTreeRegressor,
    tree.ExtraTreeRegressor,
    ensemble.RandomForestRegressor,
    ensemble.ExtraTreesRegressor,
    ensemble.GradientBoostingRegressor,
]


def options(estimator, random):
    size = {"n_estimators": 20 if random.wide else 3} if hasattr(estimator(), "n_estimators") else {}
    return {**size, "max_depth": 6 if random.wide else 3, "random_state": random.seed32()}


def cases(random):
    for estimator in CLASSIFIERS:
        name = estimator.__name__
        for classes in [2, 3]:
            x, y = random.classification(classes=classes)
            yield Case(f"{name}_{classes}", estimator(**options(estimator, random)).fit(x, y), random.rows())
        x, y = random.classification(classes=3)
        text = np.array(["setosa", "versicolor", "virginica"])[y]
        single = random.rows().astype(np.float32)
        yield Case(f"{name}_text", estimator(**options(estimator, random)).fit(x, text), single)
        if estimator is not ensemble.GradientBoostingClassifier:
            both = np.stack([y, (x[:, 0] > 0).astype(int)], axis=1)
            yield Case(f"{name}_two_outputs", estimator(**options(estimator, random)).fit(x, both), random.rows())
            x = random.rows(rows=60, missing=0.2)
            model = estimator(**options(estimator, random)).fit(x, y)
            yield Case(f"{name}_missing", model, random.rows(missing=0.3))
    for loss in ["exponential"]:
        x, y = random.classification(classes=2)
        model = ensemble.GradientBoostingClassifier(loss=loss, **options(ensemble.GradientBoostingClassifier, random))
        yield Case(f"GradientBoostingClassifier_{loss}", model.fit(x, y), random.rows())
    for init in ["zero", ensemble.RandomForestClassifier(n_estimators=2, max_depth=2, random_state=0)]:
        x, y = random.classification(classes=3)
        kind = init if isinstance(init, str) else "forest"
        model = ensemble.GradientBoostingClassifier(init=init, **options(ensemble.GradientBoostingClassifier, random))
        yield Case(f"GradientBoostingClassifier_init_{kind}", model.fit(x, y), random.rows())
    if random.wide:
        for classes in [2, 3]:
            x, y = random.classification(classes=classes)
            extra = {**options(ensemble.GradientBoostingClassifier, random), "init": linear_model.LogisticRegression()}
            model = ensemble.GradientBoostingClassifier(**extra).fit(x, y)
            # The logistic regression has coefficients of f32, and numpy computes in them.
            yield Case(f"GradientBoostingClassifier_{classes}_init_logistic", model, random.rows(), tolerance=1e-5)
        x, y = random.regression()
        extra = {**options(ensemble.GradientBoostingRegressor, random), "init": linear_model.LinearRegression()}
        model = ensemble.GradientBoostingRegressor(**extra).fit(x, y)
        yield Case("GradientBoostingRegressor_init_linear", model, random.rows(), tolerance=1e-5)  # as above
    for estimator in REGRESSORS:
        name = estimator.__name__
        x, y = random.regression()
        yield Case(name, estimator(**options(estimator, random)).fit(x, y), random.rows())
        if estimator is not ensemble.GradientBoostingRegressor:
            model = estimator(**options(estimator, random)).fit(x, np.stack([y, -2 * y], axis=1))
            yield Case(f"{name}_two_outputs", model, random.rows())
    for loss in ["absolute_error", "huber", "quantile"]:
        x, y = random.regression()
        model = ensemble.GradientBoostingRegressor(loss=loss, **options(ensemble.GradientBoostingRegressor, random))
        yield Case(f"GradientBoostingRegressor_{loss}", model.fit(x, y), random.rows())
