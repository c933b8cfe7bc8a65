"""Shapley values of trees, as the shap library has them: `[rows, features + 1]`, or with a row of them for each output;
the base value comes last."""

import lightgbm
import numpy as np
import shap
import xgboost
from sklearn import decomposition, ensemble, feature_selection, impute, preprocessing, tree
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction import text
from sklearn.pipeline import FeatureUnion, make_pipeline

from . import Case

# shap computes in f64 on thresholds and values that it has rounded.
TOLERANCE = 1e-6


def explained(model, rows):
    explainer = shap.TreeExplainer(model)
    values = np.asarray(explainer.shap_values(rows, check_additivity=False))
    base = np.atleast_1d(explainer.expected_value)
    if values.ndim == 2:
        return np.column_stack([values, np.full(len(values), base[0])])
    values = np.moveaxis(values, 2, 1)  # [rows, outputs, features]
    return np.concatenate([values, np.broadcast_to(base[None, :, None], (*values.shape[:2], 1))], axis=2)


def cases(random):
    size = {"n_estimators": 10 if random.wide else 3, "random_state": random.seed32()}
    depth = {"max_depth": 5 if random.wide else 3}
    x, y = random.regression()
    regressors = {
        "tree": tree.DecisionTreeRegressor(**depth),
        "forest": ensemble.RandomForestRegressor(**size, **depth),
        "extra": ensemble.ExtraTreesRegressor(**size, **depth),
        "boosting": ensemble.GradientBoostingRegressor(**size, **depth),
        "histogram": ensemble.HistGradientBoostingRegressor(max_iter=size["n_estimators"], **depth),
        "xgboost": xgboost.XGBRegressor(**size, **depth),
        "lightgbm": lightgbm.LGBMRegressor(**size, **depth, verbose=-1),
    }
    for name, model in regressors.items():
        yield case(name, model.fit(x, y), random)
    outliers = ensemble.IsolationForest(**size, max_features=0.7)
    yield case("isolation", outliers.fit(x), random)
    for classes in [2, 3]:
        x, y = random.classification(classes=classes)
        classifiers = {
            "tree": tree.DecisionTreeClassifier(**depth),
            "forest": ensemble.RandomForestClassifier(**size, **depth),
            "extra": ensemble.ExtraTreesClassifier(**size, **depth),
            "histogram": ensemble.HistGradientBoostingClassifier(max_iter=size["n_estimators"], **depth),
            "xgboost": xgboost.XGBClassifier(**size, **depth),
        }
        if classes == 2:
            # shap knows boosting of two classes only, and turns lightgbm's two into two outputs.
            classifiers["boosting"] = ensemble.GradientBoostingClassifier(**size, **depth)
        for name, model in classifiers.items():
            yield case(f"{name}_{classes}", model.fit(x, y), random)
    size["max_features"] = 0.6
    bag = ensemble.BaggingClassifier(tree.DecisionTreeClassifier(**depth), **size)
    yield bagged("bagging_3", bag.fit(x, y), random)
    bag = ensemble.BaggingRegressor(tree.DecisionTreeRegressor(**depth), **size)
    yield bagged("bagging", bag.fit(x, y), random)
    yield from pipelines(random)
    size.pop("max_features")
    x, y = random.regression()
    left = feature_selection.RFE(ensemble.ExtraTreesRegressor(**size, **depth), n_features_to_select=3).fit(x, y)
    rows = random.few().astype(np.float32).astype(float)
    values = explained(left.estimator_, rows[:, left.support_])
    yield Case("names_eliminated", left, rows, ["shap_values"], TOLERANCE, {"shap_values": values})


def pipelines(random):
    """Trees after steps that make other columns, which have names."""
    one_hot, bins = preprocessing.OneHotEncoder, preprocessing.KBinsDiscretizer
    infrequent = {"min_frequency": 0.4, "handle_unknown": "infrequent_if_exist", "sparse_output": False}
    scaled = make_pipeline(impute.SimpleImputer(add_indicator=True), preprocessing.StandardScaler())
    steps = {
        "frame": ColumnTransformer([
            ("scaled", scaled, ["income", "age"]),
            ("city", one_hot(drop="first", sparse_output=False), ["city"]),
            ("plan", preprocessing.OrdinalEncoder(), ["plan"]),
        ], remainder="passthrough"),
        "plain": ColumnTransformer([
            ("visits", one_hot(**infrequent), ["visits", "city"]),
            ("bins", bins(2, encode="onehot-dense"), ["income"]),
            ("none", "drop", ["plan"]),
        ], verbose_feature_names_out=False, sparse_threshold=0),
        "union": make_pipeline(
            ColumnTransformer([("words", text.CountVectorizer(), "city"), ("plan", one_hot(), ["plan"])]),
            FeatureUnion([("svd", decomposition.TruncatedSVD(2)), ("same", preprocessing.MaxAbsScaler())]),
        ),
    }
    for name, transformer in steps.items():
        frame = random.frame(rows=40)
        y = frame["age"] + 9 * (frame["city"] == "Ulm")
        frame.loc[::5, "age"] = np.nan
        model = make_pipeline(transformer, tree.DecisionTreeRegressor(max_depth=3)).fit(frame, y)
        rows = random.frame(rows=3)
        seen = model[:-1].transform(rows)
        # scikit-learn's trees compare in f32.
        seen = np.asarray(seen.todense() if hasattr(seen, "todense") else seen).astype(np.float32).astype(float)
        values = explained(model[-1], seen)
        yield Case(f"names_{name}", model, rows, ["shap_values"], TOLERANCE, {"shap_values": values})


def case(name, model, random):
    rows = random.few().astype(np.float32).astype(float)
    return Case(name, model, rows, ["shap_values"], TOLERANCE, {"shap_values": explained(model, rows)})


def bagged(name, model, random):
    """shap knows no bags, but their members, of which they are the mean."""
    rows = random.few().astype(np.float32).astype(float)
    total = 0
    for member, features in zip(model.estimators_, model.estimators_features_):
        own = explained(member, rows[:, features])
        whole = np.zeros((*own.shape[:-1], rows.shape[1] + 1))
        whole[..., [*features, -1]] = own
        total = total + whole / len(model.estimators_)
    return Case(name, model, rows, ["shap_values"], TOLERANCE, {"shap_values": total})
