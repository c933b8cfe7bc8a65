"""Multi-layer perceptrons."""

import numpy as np
from sklearn import neural_network

from . import Case


def cases(random):
    for case in models(random):
        if not random.wide:  # most of the file, for nothing
            case.model._optimizer = case.model._random_state = case.model.random_state_ = None
        yield case


def models(random):
    for activation in ["identity", "logistic", "tanh", "relu"]:
        columns = int(random.rng.integers(2, 40)) if random.wide else 4
        layers = tuple(random.rng.integers(2, 50, size=random.rng.integers(1, 4))) if random.wide else (2,)
        options = {
            "activation": activation,
            "hidden_layer_sizes": tuple(int(size) for size in layers),
            "max_iter": 30 if random.wide else 3,
            "random_state": random.seed32(),
        }
        all_of_it = activation == "relu" or random.wide
        for classes in [2, 3] + [6] * random.wide if all_of_it else [3]:
            x, y = random.classification(columns=columns, classes=classes)
            model = neural_network.MLPClassifier(**options).fit(x, y)
            yield Case(f"MLPClassifier_{activation}_{classes}", model, random.few(columns))
        if all_of_it:
            text = np.array(["no", "yes"])[(x[:, 0] > 0).astype(int)]
            model = neural_network.MLPClassifier(**options).fit(x, text)
            yield Case(f"MLPClassifier_{activation}_text", model, random.thin(random.few(columns)))
            many = np.stack([y == 0, y == 1, x[:, 0] > 0, x[:, 1] > 0], axis=1).astype(int)
            model = neural_network.MLPClassifier(**options).fit(x, many)
            yield Case(f"MLPClassifier_{activation}_multilabel", model, random.few(columns))
        x, y = random.regression(columns=columns)
        model = neural_network.MLPRegressor(**options).fit(x, y)
        yield Case(f"MLPRegressor_{activation}", model, random.few(columns))
        if all_of_it:
            model = neural_network.MLPRegressor(**options).fit(x, np.stack([y, -y, y * y], axis=1))
            yield Case(f"MLPRegressor_{activation}_targets", model, random.few(columns))
            # numpy adds up singles as singles, in an order of its own.
            single = random.few(columns).astype(np.float32)
            model = neural_network.MLPRegressor(**options).fit(x.astype(np.float32), y.astype(np.float32))
            yield Case(f"MLPRegressor_{activation}_single", model, single, tolerance=1e-5)
            x, y = random.classification(columns=columns)
            model = neural_network.MLPClassifier(**options).fit(x.astype(np.float32), y)
            yield Case(f"MLPClassifier_{activation}_single", model, single, tolerance=1e-5)
    x, y = random.regression()
    model = neural_network.BernoulliRBM(n_components=3, random_state=0).fit(x > 0)
    yield Case("BernoulliRBM", model, random.thin(random.few()))
    if "loss" in neural_network.MLPRegressor().get_params():
        model = neural_network.MLPRegressor(loss="poisson", hidden_layer_sizes=(3,), max_iter=20, random_state=0)
        yield Case("MLPRegressor_poisson", model.fit(x, y * y), random.few())
    one = neural_network.MLPClassifier((3,), max_iter=5, random_state=0).fit(x, np.full(len(x), "a"))
    yield Case("MLPClassifier_one_class", one, random.few())
