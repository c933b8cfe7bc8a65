"""Selection of columns."""

import numpy as np
import sklearn
from sklearn import ensemble, feature_selection, linear_model, tree
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from . import Case


def univariate():
    yield feature_selection.SelectKBest(k=3)
    yield feature_selection.SelectPercentile(percentile=40)
    yield feature_selection.SelectFpr(alpha=0.2)
    yield feature_selection.SelectFdr(alpha=0.3)
    yield feature_selection.SelectFwe(alpha=0.3)
    yield feature_selection.GenericUnivariateSelect(mode="k_best", param=2)


def models(random):
    state = random.seed32()
    forest = {"n_estimators": 5 if random.wide else 2, "max_depth": 3, "random_state": state}
    yield linear_model.LogisticRegression(), {}
    yield ensemble.RandomForestClassifier(**forest), {"threshold": "1.1*median"}
    yield ensemble.GradientBoostingClassifier(**forest), {"threshold": 0.05}
    yield linear_model.LogisticRegression(), {"max_features": 2, "norm_order": 2}
    if not random.wide:
        return
    yield tree.DecisionTreeClassifier(max_depth=4, random_state=state), {"threshold": "median"}
    yield ensemble.ExtraTreesClassifier(**forest), {"max_features": 3, "threshold": -np.inf}
    yield linear_model.LogisticRegression(C=0.5, penalty="l1", solver="saga", max_iter=500), {}
    yield linear_model.SGDClassifier(penalty="l1", alpha=0.05, random_state=state), {"norm_order": np.inf}
    yield linear_model.Lasso(alpha=0.1), {}
    yield linear_model.ElasticNet(alpha=0.1, l1_ratio=1.0), {}
    yield linear_model.ElasticNet(alpha=0.1, l1_ratio=0.5), {}
    yield ensemble.AdaBoostClassifier(n_estimators=4, random_state=state), {}
    yield linear_model.Lasso(alpha=0.1), {"threshold": "mean", "importance_getter": "coef_"}


def cases(random):
    x, y = random.classification(columns=6)
    rows = random.rows(columns=6, rows=3)
    for number in range(4 if random.wide else 1):
        x, y = random.classification(columns=6, rows=20 + 40 * number)
        x[:, 2] = x[:, 4]  # ties
        for selector in univariate():
            yield Case(f"{type(selector).__name__}_{number}", selector.fit(x, y), rows)
    for percent in [0, 17, 50, 66.7, 100] if random.wide else []:
        yield Case(f"percentile_{percent}", feature_selection.SelectPercentile(percentile=percent).fit(x, y), rows)
        for mode in ["percentile", "fpr", "fdr", "fwe"]:
            param = percent if mode == "percentile" else percent / 200 + 1e-6
            model = feature_selection.GenericUnivariateSelect(mode=mode, param=param)
            yield Case(f"generic_{mode}_{percent}", model.fit(x, y), rows)
    constant = x.copy()
    constant[:, 1] = 2
    variance = feature_selection.VarianceThreshold(0.1 if random.wide else 0.0)
    yield Case("VarianceThreshold", variance.fit(constant), random.rows(columns=6, rows=3, missing=0.3))
    for number, (model, options) in enumerate(models(random)):
        try:
            selector = feature_selection.SelectFromModel(model, **options).fit(x, y)
        except (TypeError, ValueError):
            continue  # of a version that does not go with its scipy, or has no such option
        yield Case(f"SelectFromModel_{number}", selector, rows)
    prefit = feature_selection.SelectFromModel(tree.DecisionTreeClassifier(max_depth=3).fit(x, y), prefit=True)
    if sklearn.__version__ >= "1.2":
        prefit.fit(x, y)
    yield Case("prefit", prefit, rows)
    rfe = feature_selection.RFE(linear_model.LogisticRegression(), n_features_to_select=2)
    yield Case("RFE", rfe.fit(x, y), rows)
    rfecv = feature_selection.RFECV(tree.DecisionTreeClassifier(max_depth=2, random_state=0), cv=2)
    yield Case("RFECV", rfecv.fit(x, y), rows)
    model = feature_selection.SequentialFeatureSelector(tree.DecisionTreeClassifier(max_depth=2), n_features_to_select=2, cv=2)
    yield Case("SequentialFeatureSelector", model.fit(x, y), rows)
    missing = rows.copy()
    missing[0] = np.nan
    model = feature_selection.SequentialFeatureSelector(
        ensemble.HistGradientBoostingClassifier(max_iter=2), n_features_to_select=2, cv=2
    )
    yield Case("SequentialFeatureSelector_missing", model.fit(x, y), missing)
    # Of sparse columns, and on the way to a model.
    frame = random.frame(rows=80).assign(review=lambda f: f["city"] + " is " + f["plan"] + " and so on")
    y = (frame["visits"] > 4).astype(int)
    columns = make_column_transformer(
        (OneHotEncoder(), ["city", "plan"]), (TfidfVectorizer(), "review"), (StandardScaler(), ["age"])
    )
    chosen = feature_selection.SelectKBest(feature_selection.f_classif, k=6)
    model = make_pipeline(columns, feature_selection.VarianceThreshold(), chosen, linear_model.LogisticRegression())
    rows = frame.head(5)
    yield Case("pipeline", model.fit(frame, y), rows)
