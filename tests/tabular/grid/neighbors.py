"""Nearest neighbours."""

import numpy as np
import sklearn
from sklearn import neighbors

from . import Case


VERSION = tuple(int(part) for part in sklearn.__version__.split(".")[:2])


def places(random, rows, columns):
    """Few different values, so that many rows are equally far."""
    return random.rng.integers(0, 4, size=(rows, columns)).astype(float)


def reach(name, columns, random):
    if name.startswith("Radius"):
        return {"radius": 1.5 * columns**0.5}
    return {"n_neighbors": int(random.rng.integers(1, 12)) if random.wide else 3}


METRICS = [
    {"metric": "euclidean"},
    {"metric": "manhattan"},
    {"metric": "chebyshev"},
    {"metric": "minkowski", "p": 3},
]
BRUTE = [{"metric": "cosine"}, {"metric": "canberra"}, {"metric": "sqeuclidean"}]


def kinds(random):
    """Algorithms with what they can do: all of it in wide mode, each once otherwise."""
    algorithms = ["kd_tree", "ball_tree", "brute"]
    if not random.wide:
        return list(zip(algorithms, METRICS)) + [("brute", BRUTE[0])]
    return [(algorithm, metric) for algorithm in algorithms for metric in METRICS] + [("brute", one) for one in BRUTE]


def unusual(random):
    """Metrics of which each is seldom. Many rows are equally far by those of zeros: all are neighbours, by their distance."""
    columns = 6
    inverse = np.linalg.inv(np.cov(random.rng.normal(size=(40, columns)), rowvar=False))
    metrics = {
        "seuclidean": {"V": random.rng.uniform(0.5, 2, columns)},
        "mahalanobis": {"VI": (inverse + inverse.T) / 2},
    }
    zeros = ["jaccard", "dice", "rogerstanimoto", "russellrao", "sokalsneath"]
    brute = ["correlation", "yule"]
    for metric in [*metrics, "braycurtis", *zeros, *brute]:
        for algorithm in ["brute"] if metric in brute else ["brute", "ball_tree"]:
            if not random.wide and algorithm == "ball_tree":
                continue
            by_zeros = metric in [*zeros, "yule"]
            x = places(random, 30, columns) if by_zeros else random.rng.normal(size=(30, columns))
            few = places(random, 5, columns) if by_zeros else random.few(columns)
            x[:, 0] = few[:, 0] = 1  # no row is all zeros
            if metric == "braycurtis":
                x, few = np.abs(x), np.abs(few)
            y = random.rng.normal(size=30)
            options = {"algorithm": algorithm, "leaf_size": 5, "metric": metric, "metric_params": metrics.get(metric)}
            near = 30 if by_zeros else 4
            model = neighbors.KNeighborsRegressor(near, weights="distance", **options).fit(x, y)
            yield Case(f"KNeighborsRegressor_{algorithm}_{metric}", model, few)


def cases(random):
    yield from unusual(random)
    for algorithm, metric in kinds(random):
        # Of one column, all rows are at no angle, or at all of it.
        columns = int(random.rng.integers(2 if metric["metric"] == "cosine" else 1, 20)) if random.wide else 3
        options = {"algorithm": algorithm, "leaf_size": 5, **metric}
        for weights in ["uniform", "distance"]:
            # scikit-learn subtracts numbers that are almost equal for near rows; weights are the inverse of the rest.
            exact = algorithm != "brute" or metric["metric"] not in ["cosine", "euclidean", "sqeuclidean"]
            tolerance = 1e-12 if exact or weights == "uniform" else 1e-8
            name = f"{algorithm}_{metric['metric']}_{weights}"
            if random.wide or algorithm != "ball_tree" or weights == "uniform":
                many = {**reach("K", columns, random), "weights": weights, **options}
                x, y = random.classification(rows=150 if random.wide else 20, columns=columns)
                text = np.array(["a", "b", "c"])[y]
                model = neighbors.KNeighborsClassifier(**many).fit(x, text)
                yield Case(f"KNeighborsClassifier_{name}", model, random.few(columns), tolerance=tolerance)
            if random.wide or (weights == "uniform" and algorithm == "brute"):
                x, y = random.regression(rows=200 if random.wide else 20, columns=columns)
                model = neighbors.KNeighborsRegressor(**many).fit(x, y)
                yield Case(f"KNeighborsRegressor_{name}", model, random.few(columns), tolerance=tolerance)
            if metric["metric"] == "cosine":
                continue  # nothing is far away
            if random.wide or (weights == "distance" and algorithm != "brute"):
                far = {**reach("Radius", columns, random), "weights": weights, **options}
                x, y = random.classification(rows=150 if random.wide else 20, columns=columns)
                model = neighbors.RadiusNeighborsClassifier(outlier_label="most_frequent", **far).fit(x, y)
                yield Case(f"RadiusNeighborsClassifier_{name}", model, random.few(columns) * 1.5, tolerance=tolerance)
                model = neighbors.RadiusNeighborsRegressor(**far).fit(x, x[:, 0] * y)
                yield Case(f"RadiusNeighborsRegressor_{name}", model, random.few(columns), tolerance=tolerance)
            # Until 1.0, and for sparse rows, numpy's partition chooses between rows that are equally far.
            if algorithm != "brute" or (random.wide and VERSION >= (1, 1)):
                x = places(random, 150 if random.wide else 20, columns)
                y = random.rng.integers(0, 3, len(x))
                many["weights"] = "uniform"
                model = neighbors.KNeighborsClassifier(**many).fit(x, y)
                yield Case(f"KNeighborsClassifier_{name}_ties", model, places(random, 10 if random.wide else 3, columns))
    x, y = random.classification(rows=60 if random.wide else 20)
    both = np.stack([y, (x[:, 0] > 0).astype(int)], axis=1)
    for weights in ["uniform", "distance"]:
        model = neighbors.KNeighborsClassifier(weights=weights).fit(x, both)
        yield Case(f"KNeighborsClassifier_outputs_{weights}", model, random.few())
        model = neighbors.KNeighborsRegressor(weights=weights).fit(x, np.stack([y, -y * x[:, 0]], axis=1))
        yield Case(f"KNeighborsRegressor_outputs_{weights}", model, random.few())
        # numpy averages singles as singles.
        model = neighbors.KNeighborsRegressor(weights=weights).fit(x, x[:, 0].astype(np.float32))
        yield Case(f"KNeighborsRegressor_single_{weights}", model, random.few(), tolerance=1e-6)
    model = neighbors.RadiusNeighborsClassifier(radius=0.8, outlier_label=7).fit(x, y)
    yield Case("RadiusNeighborsClassifier_outlier", model, random.few() * 2)
    x = random.rng.integers(0, 9, size=(len(y), 9)).astype(float)
    model = neighbors.RadiusNeighborsClassifier(radius=0.9, metric="hamming").fit(x, y)
    yield Case("RadiusNeighborsClassifier_hamming", model, x[:3])
    for label in [1, 0]:
        model = neighbors.RadiusNeighborsClassifier(
            radius=0.8, metric="manhattan", algorithm="brute", outlier_label=label
        ).fit(random.rows(rows=len(y)), y * 2)
        yield Case(f"RadiusNeighborsClassifier_outlier_{label}", model, random.few() * 2)
    x, y = random.classification(rows=20, columns=2)
    model = neighbors.KNeighborsClassifier(algorithm="ball_tree", metric="haversine", weights="distance")
    yield Case("KNeighborsClassifier_haversine", model.fit(np.clip(x, -1.5, 1.5), y), random.few(2))
    x = random.rows(rows=20, columns=20)
    model = neighbors.KNeighborsRegressor(weights="distance").fit(random.thin(x), x[:, 0])
    yield Case("KNeighborsRegressor_sparse", model, random.few(20))
    x = random.rows(rows=60 if random.wide else 20, columns=3)
    for number, options in enumerate([{"n_neighbors": 5}, {"n_neighbors": 3, "contamination": 0.1, "metric": "l1"}]):
        model = neighbors.LocalOutlierFactor(novelty=True, **options).fit(x)
        yield Case(f"LocalOutlierFactor_{number}", model, random.few(3), ["predict", "decision_function"])
