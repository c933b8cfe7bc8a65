"""Trains small models with the real xgboost and lightgbm, and writes them with the libraries' own answers.

    python make_boosters.py        with new libraries (xgboost 3.2, lightgbm 4.7): xgboost/*, lightgbm/*
    python make_boosters.py old    with xgboost < 1.7, lightgbm < 4 (1.6.2, 3.3.5): legacy formats and versions
    python make_boosters.py random DIR COUNT [FIRST]    random models, for BOOSTER_CASES=DIR (see src/formats/naive)

A case is `NAME.answers.json` with the rows (NaN as null, infinities as text) and what the library says of them, and the
same model in one or more formats, `NAME.json`, `NAME.ubj`, `NAME.model`, `NAME.txt`. Floats are the shortest text that
gives the same bits back, of the library's own precision.
"""

import json
import pathlib
import sys

import lightgbm as lgb
import numpy as np
import xgboost as xgb

HERE = pathlib.Path(__file__).parent
FEATURES = 5
SPECIAL = [0.0, -0.0, 1e-36, -1e-36, 1e-35, 3.4e38, -3.4e38, 0.5, -0.5, 1.0, 2.0, 7.0, -1.0, 1e6, np.nan]


def version(library):
    return tuple(int(part) for part in library.__version__.split(".")[:2])


def plain(values):
    """Nested lists of Python numbers that json writes in the shortest form."""
    values = np.asarray(values)
    if values.ndim:
        return [plain(value) for value in values]
    if np.isnan(values):
        return None
    if np.isinf(values):
        return "inf" if values > 0 else "-inf"
    if values.dtype == np.float32:
        return float(np.format_float_scientific(values, unique=True, trim="-"))
    return float(values) if values.dtype.kind == "f" else int(values)


def write_answers(folder, name, **answers):
    folder.mkdir(parents=True, exist_ok=True)
    answers = {key: value if isinstance(value, str) else plain(value) for key, value in answers.items()}
    text = json.dumps(answers, separators=(",", ":"))
    (folder / f"{name}.answers.json").write_text(text.replace("]],", "]],\n") + "\n")


def data(rng, rows, categorical, dtype, missing=True):
    x = rng.normal(size=(rows, FEATURES)).astype(dtype)
    x[:, 1] = np.round(x[:, 1] * 4) / 4
    x[rng.random(x.shape) < 0.1] = 0
    if missing:
        x[rng.random(x.shape) < 0.1] = np.nan
    if categorical:
        x[:, FEATURES - 1] = rng.integers(0, 40, rows)
        x[:, FEATURES - 2] = rng.integers(0, 5, rows)
    return x


def probes(rng, x, count, specials):
    """Rows to ask about: some of the training data, some with values from the edges."""
    rows = x[rng.integers(0, len(x), count)].copy()
    spots = rng.random(rows.shape) < 0.4
    spots[: count // 3] = False
    rows[spots] = rng.choice(np.array(specials, dtype=x.dtype), spots.sum())
    return rows


def targets(rng, objective, x, outputs):
    score = np.nan_to_num(x[:, 0]) + 0.5 * np.nan_to_num(x[:, 1]) * (np.nan_to_num(x[:, 3]) > 0.2)
    score = score + rng.normal(size=len(x)) * 0.3 + (x[:, FEATURES - 1] % 3 if outputs else 0)
    score = np.nan_to_num(score)
    if objective.startswith(("multi:", "multiclass")):
        return np.digitize(score, np.quantile(score, [0.3, 0.6])).astype(float)
    if objective.startswith("binary") or objective == "reg:logistic":
        return (score > 0.2).astype(float)
    if objective in ("cross_entropy", "cross_entropy_lambda"):
        return 1 / (1 + np.exp(-score))
    if objective.startswith(("rank", "lambda")):
        return np.digitize(score, np.quantile(score, [0.3, 0.6, 0.8])).astype(float)
    if objective in ("count:poisson", "poisson"):
        return np.round(np.exp(np.clip(score, -3, 3)))
    positive = ("reg:gamma", "reg:tweedie", "survival", "gamma", "tweedie", "reg:squaredlogerror", "mape")
    if objective.startswith(positive):
        return np.exp(np.clip(score, -3, 3)) + 0.1
    if outputs > 1:
        return np.stack([score * (index + 1) + rng.normal(size=len(x)) for index in range(outputs)], axis=1)
    return score * 3


# ---------------------------------------------------------------------------------------------------------- xgboost

XGB_OBJECTIVES = [
    "reg:squarederror", "reg:squaredlogerror", "reg:logistic", "reg:pseudohubererror", "reg:absoluteerror",
    "reg:quantileerror", "reg:gamma", "reg:tweedie", "binary:logistic", "binary:logitraw", "binary:hinge",
    "count:poisson", "survival:cox", "survival:aft", "multi:softmax", "multi:softprob", "rank:pairwise", "rank:ndcg",
    "rank:map",
]  # fmt: skip
XGB_VECTORS = ["reg:squarederror", "reg:absoluteerror", "binary:logistic", "multi:softprob"]


def xgb_matrix(x, categorical, **more):
    types = ["q"] * (FEATURES - 2) + ["c", "c"] if categorical else None
    return xgb.DMatrix(x, feature_types=types, enable_categorical=categorical, **more)


def xgb_train(
    rng, objective, categorical=False, rounds=3, rows=150, outputs=0, early=False, pandas=False, **params
):  # fmt: skip
    linear = params.get("booster") == "gblinear"
    x = data(rng, rows, categorical, np.float32)
    y = targets(rng, objective, x, outputs)
    more = {"group": [rows // 3, rows - rows // 3]} if objective.startswith("rank") else {}
    if objective == "rank:map":
        y = (y > 1).astype(float)
    train = xgb_matrix(x, categorical, label=None if objective == "survival:aft" else y, **more)
    if objective == "survival:aft":
        train.set_float_info("label_lower_bound", y)
        train.set_float_info("label_upper_bound", y * 1.5)
    if pandas:
        import pandas as pd

        frame = pd.DataFrame(x, columns=[f'col "{index}" é' for index in range(FEATURES)])
        frame[frame.columns[-1]] = pd.Series(rng.choice(["red", "grün", "b"], rows)).astype("category")
        x[:, -1] = frame[frame.columns[-1]].cat.codes
        train = xgb.DMatrix(frame, label=y, enable_categorical=True)
    params = {"objective": objective, "seed": int(rng.integers(1 << 30)), "nthread": 1, **params}
    if not linear:
        params = {"max_depth": 3, **params}
    if objective.startswith("multi:"):
        params["num_class"] = 3
    if objective == "reg:quantileerror":
        params["quantile_alpha"] = [0.2, 0.5, 0.9]
    stop = {"early_stopping_rounds": 1, "evals": [(train, "t")], "verbose_eval": False} if early else {}
    return x, xgb.train(params, train, rounds, **stop)


def xgb_answer(folder, name, booster, rows, categorical=False, formats=("json",)):
    folder.mkdir(parents=True, exist_ok=True)
    if "json" in formats:
        (folder / f"{name}.json").write_bytes(booster.save_raw("json"))
    if "ubj" in formats:
        (folder / f"{name}.ubj").write_bytes(booster.save_raw("ubj"))
    if "model" in formats:
        (folder / f"{name}.model").write_bytes(booster.save_raw("deprecated"))
    if "pickle" in formats:
        (folder / f"{name}.pickle.ubj").write_bytes(booster.__getstate__()["handle"])
    matrix = xgb_matrix(rows, categorical)
    if booster.feature_names:
        matrix = xgb.DMatrix(
            rows, feature_names=booster.feature_names, feature_types=booster.feature_types, enable_categorical=True
        )
    shape = (len(rows), -1)
    answers = {
        "library": f"xgboost {xgb.__version__}",
        "rows": rows,
        "margin": booster.predict(matrix, output_margin=True).reshape(shape),
        "prediction": booster.predict(matrix).reshape(shape),
    }
    config = json.loads(booster.save_config())["learner"]["gradient_booster"]
    if config["name"] != "gblinear":
        answers["leaves"] = booster.predict(matrix, pred_leaf=True).reshape(shape).astype(int)
        answers["inplace_margin"] = booster.inplace_predict(rows, predict_type="margin").reshape(shape)
        best = booster.attr("best_iteration")
        if best is not None:
            until = (0, int(best) + 1)
            answers["best_margin"] = booster.predict(matrix, output_margin=True, iteration_range=until).reshape(shape)
    if "multi_output_tree" not in booster.save_config():
        contributions = booster.predict(matrix, pred_contribs=True)
        answers["contributions"] = contributions.reshape((len(rows), -1, FEATURES + 1))
    write_answers(folder, name, **answers)


def xgb_specials(categorical):
    return SPECIAL + [-7.0, 39.0, 40.0, 1000.0, 16777216.0, 1.7, -0.3] if categorical else SPECIAL


def xgb_fixtures(folder):
    def case(name, objective, formats=("json",), count=9, **params):
        rng = np.random.default_rng(sum(map(ord, name)))
        categorical = params.get("categorical", False)
        x, booster = xgb_train(rng, objective, **params)
        xgb_answer(folder, name, booster, probes(rng, x, count, xgb_specials(categorical)), categorical, formats)

    for objective in XGB_OBJECTIVES:
        case(objective.replace(":", "_"), objective, rounds=2, max_depth=2, count=6)
    case("categories", "binary:logistic", ("json", "ubj"), categorical=True, rounds=4, count=16)
    case("one_hot", "reg:squarederror", ("ubj",), categorical=True, max_cat_to_onehot=100, count=16)
    case("dart", "binary:logistic", ("json", "ubj"), booster="dart", rate_drop=0.5, rounds=6)
    case("dart_multi", "multi:softprob", ("ubj",), booster="dart", rate_drop=0.4, rounds=4, max_depth=2)
    case("linear", "binary:logistic", ("json", "ubj"), booster="gblinear")
    case("linear_multi", "multi:softprob", ("json",), booster="gblinear", updater="coord_descent")
    case("forest", "binary:logistic", ("ubj",), num_parallel_tree=3, subsample=0.5, rounds=2)
    case("targets", "reg:squarederror", ("json",), outputs=3, max_depth=2)
    case("vector", "reg:squarederror", ("json", "ubj"), outputs=3, multi_strategy="multi_output_tree")
    case("vector_multi", "multi:softprob", ("ubj",), multi_strategy="multi_output_tree", tree_method="hist")
    case("pruned", "reg:squarederror", ("json", "pickle"), tree_method="exact", gamma=20, max_depth=5, rounds=3)
    case("early", "binary:logistic", ("json", "pickle"), early=True, rounds=30, learning_rate=3, max_depth=2)
    case("base_score", "reg:gamma", base_score=3.5, max_depth=2)
    case("named", "binary:logistic", ("json", "ubj"), pandas=True, rounds=2)
    case("stump", "reg:squarederror", max_depth=1, rounds=1, gamma=1e9)


def xgb_old_fixtures(folder):
    def case(name, objective, **params):
        rng = np.random.default_rng(sum(map(ord, name)))
        x, booster = xgb_train(rng, objective, **params)
        booster.set_attr(note="kept")
        xgb_answer(folder, name, booster, probes(rng, x, 9, SPECIAL), formats=("json", "model"))

    case("old_trees", "binary:logistic", base_score=0.3)
    case("old_multi", "multi:softprob", rounds=2, max_depth=2)
    case("old_dart", "count:poisson", booster="dart", rate_drop=0.5, rounds=4)
    case("old_linear", "reg:squarederror", booster="gblinear")
    case("old_pruned", "reg:squarederror", tree_method="exact", gamma=20, max_depth=5)
    case("old_forest", "binary:logistic", num_parallel_tree=2, subsample=0.5, rounds=2, early=True)


def xgb_random(folder, seed):
    rng = np.random.default_rng(seed)
    booster = str(rng.choice(["gbtree", "gbtree", "gbtree", "dart", "gblinear"]))
    params = {"booster": booster, "learning_rate": float(rng.choice([0.1, 0.3, 1.0]))}
    objective = str(rng.choice(XGB_OBJECTIVES))
    categorical = False
    if booster != "gblinear":
        categorical = bool(rng.random() < 0.4)
        params["max_depth"] = int(rng.integers(1, 8))
        params["tree_method"] = str(rng.choice(["hist", "approx"] + ([] if categorical else ["exact"])))
        params["num_parallel_tree"] = int(rng.choice([1, 1, 3]))
        params["subsample"] = float(rng.choice([1.0, 0.6]))
        params["max_cat_to_onehot"] = int(rng.choice([1, 4, 100]))
        params["grow_policy"] = "lossguide" if params["tree_method"] == "hist" and rng.random() < 0.3 else "depthwise"
    if booster == "dart":
        params["rate_drop"] = float(rng.choice([0.1, 0.5]))
        params["normalize_type"] = str(rng.choice(["tree", "forest"]))
    if rng.random() < 0.3:
        params["base_score"] = 0.7
    outputs = 0
    if booster == "gbtree" and objective in XGB_VECTORS and rng.random() < 0.5 and version(xgb) >= (2, 0):
        outputs = 3 if objective == "reg:squarederror" else 0
        params.update(multi_strategy="multi_output_tree", tree_method="hist", grow_policy="depthwise")
        categorical = False
        if not outputs and objective != "multi:softprob":
            params.pop("multi_strategy")
    x, model = xgb_train(
        rng, objective, categorical, rounds=int(rng.integers(1, 40)), rows=int(rng.integers(20, 600)), outputs=outputs,
        early=bool(rng.random() < 0.2), **params
    )  # fmt: skip
    rows = probes(rng, x, 40, xgb_specials(categorical))
    formats = ("json", "ubj") if version(xgb) >= (2, 0) else ("json",) if categorical else ("json", "model")
    xgb_answer(folder, f"xgb_{seed}", model, rows, categorical, formats)


# --------------------------------------------------------------------------------------------------------- lightgbm

LGB_OBJECTIVES = [
    "regression", "regression_l1", "huber", "fair", "poisson", "quantile", "mape", "gamma", "tweedie", "binary",
    "multiclass", "multiclassova", "cross_entropy", "cross_entropy_lambda", "lambdarank", "rank_xendcg",
]  # fmt: skip
LGB_SPECIAL = SPECIAL + [1e300, -1e300, np.inf, -np.inf, 1.0000000180025095e-35, -1.0000000180025095e-35, 1.1e-35]


def lgb_train(rng, objective, categorical=False, rounds=3, rows=200, sqrt=False, missing=True, pandas=False, **params):
    x = data(rng, rows, categorical, np.float64, missing)
    y = targets(rng, objective, x, 0)
    if objective in ("lambdarank", "rank_xendcg"):
        params["group"] = [rows // 2, rows - rows // 2]
    group = params.pop("group", None)
    if objective.startswith("multiclass"):
        params["num_class"] = 3
    params = {
        "objective": objective, "num_leaves": 6, "min_data_in_leaf": 5, "verbose": -1, "num_threads": 1,
        "deterministic": True, "seed": int(rng.integers(1 << 30)), "min_data_per_group": 5, "cat_smooth": 1,
        "reg_sqrt": sqrt, **params,
    }  # fmt: skip
    frame = x
    columns = [FEATURES - 2, FEATURES - 1] if categorical else "auto"
    if pandas:
        import pandas as pd

        frame = pd.DataFrame(x, columns=[f"column {index}" for index in range(FEATURES)])
        names = pd.Series([f"kind é {int(value)}" for value in frame[f"column {FEATURES - 1}"]])
        frame[f"column {FEATURES - 1}"] = names.astype("category")
        columns = "auto"
    train = lgb.Dataset(frame, y, group=group, categorical_feature=columns, params=params, free_raw_data=False)
    custom = params["objective"] == "custom"
    if custom and version(lgb) < (4, 0):
        return x, lgb.train({**params, "objective": "none"}, train, rounds, fobj=squared)
    return x, lgb.train({**params, "objective": squared} if custom else params, train, rounds)


def squared(score, train):
    return score - train.get_label(), np.ones(len(score))


def lgb_answer(folder, name, booster, rows, linear=False):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.txt").write_text(booster.model_to_string(), newline="\n")
    # What users have is a model that was loaded again.
    booster = lgb.Booster(model_str=booster.model_to_string())
    booster.pandas_categorical = None
    shape = (len(rows), -1)
    answers = {
        "library": f"lightgbm {lgb.__version__}",
        "rows": rows,
        "raw": booster.predict(rows, raw_score=True).reshape(shape),
        "prediction": booster.predict(rows).reshape(shape),
        "leaves": booster.predict(rows, pred_leaf=True).reshape(shape).astype(int),
    }
    if not linear:
        answers["contributions"] = booster.predict(rows, pred_contrib=True).reshape((len(rows), -1, FEATURES + 1))
    write_answers(folder, name, **answers)


def lgb_fixtures(folder, prefix=""):
    def case(name, objective, count=9, **params):
        name = prefix + name
        rng = np.random.default_rng(sum(map(ord, name)))
        x, booster = lgb_train(rng, objective, **params)
        specials = LGB_SPECIAL + [-7.0, 39.0, 40.0, 1000.0, 3e9, 1.7, -0.3] if params.get("categorical") else LGB_SPECIAL
        linear = params.get("linear_tree", False)
        lgb_answer(folder, name, booster, probes(rng, x, count, specials), linear)

    if not prefix:
        for objective in LGB_OBJECTIVES:
            case(objective, objective, rounds=2, num_leaves=4, count=6)
        case("sqrt", "regression", sqrt=True)
        case("sigmoid", "binary", sigmoid=0.5)
        case("custom", "custom")
        case("zero_missing", "binary", zero_as_missing=True)
        case("no_missing", "regression", missing=False)
        case("use_missing", "regression", use_missing=False)
        case("linear_categories", "regression", linear_tree=True, categorical=True, count=12)
        case("dart", "binary", boosting="dart", rounds=6, drop_rate=0.5)
        case("goss", "binary", boosting="goss", rounds=3)
        case("forest_multi", "multiclass", boosting="rf", bagging_freq=1, bagging_fraction=0.6, rounds=3)
        case("empty", "binary", min_data_in_leaf=10000, rounds=2)
        case("pandas", "regression", categorical=True, pandas=True)
    case("categories", "binary", categorical=True, rounds=4, count=16)
    case("linear", "regression", linear_tree=True)
    case("forest", "binary", boosting="rf", bagging_freq=1, bagging_fraction=0.6, rounds=4)
    if prefix:
        case("multiclass", "multiclass", rounds=2, num_leaves=4)


def lgb_random(folder, seed):
    rng = np.random.default_rng(seed)
    objective = str(rng.choice(LGB_OBJECTIVES + ["custom"]))
    params = {
        "boosting": str(rng.choice(["gbdt", "gbdt", "dart", "rf"])), "num_leaves": int(rng.integers(2, 40)),
        "zero_as_missing": bool(rng.random() < 0.2), "use_missing": bool(rng.random() < 0.8),
        "min_data_in_leaf": int(rng.choice([1, 5, 50])), "max_cat_to_onehot": int(rng.choice([1, 4, 100])),
        "sigmoid": float(rng.choice([1.0, 0.3])),
    }  # fmt: skip
    if params["boosting"] == "rf":
        params.update(bagging_freq=1, bagging_fraction=0.6)
        objective = "binary" if objective == "custom" else objective
    linear = params["boosting"] == "gbdt" and objective in ("regression", "binary", "quantile") and rng.random() < 0.5
    linear = linear and not params["zero_as_missing"]
    categorical = bool(rng.random() < 0.4)
    x, booster = lgb_train(
        rng, objective, categorical, rounds=int(rng.integers(1, 40)), rows=int(rng.integers(40, 800)),
        sqrt=bool(rng.random() < 0.2), linear_tree=linear, **params
    )  # fmt: skip
    specials = LGB_SPECIAL + [-7.0, 39.0, 40.0, 1000.0, 3e9, 1.7, -0.3] if categorical else LGB_SPECIAL
    lgb_answer(folder, f"lgb_{seed}", booster, probes(rng, x, 40, specials), linear)


def main():
    if sys.argv[1:2] == ["random"]:
        folder, failures = pathlib.Path(sys.argv[2]), 0
        first = int((sys.argv[4:] or ["0"])[0])
        for seed in range(first, first + int(sys.argv[3])):
            for make, kind in [(xgb_random, "xgboost"), (lgb_random, "lightgbm")]:
                try:
                    make(folder / kind, seed)
                except (xgb.core.XGBoostError, lgb.basic.LightGBMError) as error:
                    failures += 1
                    print(kind, seed, "not trained:", str(error).splitlines()[0][:150])
        print(failures, "were not trained")
    elif sys.argv[1:] == ["old"]:
        xgb_old_fixtures(HERE / "xgboost")
        lgb_fixtures(HERE / "lightgbm", "old_")
    else:
        xgb_fixtures(HERE / "xgboost")
        lgb_fixtures(HERE / "lightgbm")


if __name__ == "__main__":
    main()
