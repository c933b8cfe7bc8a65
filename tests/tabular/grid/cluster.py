"""Clusters by their centres, and mixtures of Gaussians."""

import numpy as np
from sklearn import cluster, mixture

from . import Case


def cases(random):
    for number in range(5 if random.wide else 1):
        columns = int(random.rng.integers(2, 20)) if number else 3
        count = int(random.rng.integers(1, 12)) if number else 4
        x = random.rows(columns, 120 if random.wide else 20)
        models = [
            cluster.KMeans(count, n_init=2, random_state=0),
            cluster.MiniBatchKMeans(count, n_init=2, random_state=0),
            cluster.Birch(n_clusters=count, threshold=0.8),
            cluster.Birch(n_clusters=None, threshold=0.8),
            cluster.MeanShift(),
            cluster.AffinityPropagation(random_state=0),
        ]
        if hasattr(cluster, "BisectingKMeans"):
            models.append(cluster.BisectingKMeans(count, random_state=0))
        for place, model in enumerate(models):
            name = f"{type(model).__name__}_{number}_{place}"
            yield Case(name, model.fit(x), random.few(columns))
        yield Case(f"KMeans_{number}_sparse", models[0], random.thin(random.few(columns)))
        # Singles are added up as singles, in an order of their own.
        model = cluster.KMeans(count, n_init=2, random_state=0).fit(x.astype(np.float32))
        yield Case(f"KMeans_{number}_single", model, random.few(columns).astype(np.float32), tolerance=1e-5)
        for covariance in ["full", "tied", "diag", "spherical"]:
            options = {"covariance_type": covariance, "random_state": 0, "max_iter": 20, "n_components": 1 + count % 4}
            model = mixture.GaussianMixture(**options).fit(x)
            yield Case(f"GaussianMixture_{covariance}_{number}", model, random.few(columns))
            kind = ["dirichlet_process", "dirichlet_distribution"][covariance in ["tied", "spherical"] or number % 2]
            model = mixture.BayesianGaussianMixture(weight_concentration_prior_type=kind, **options)
            yield Case(f"BayesianGaussianMixture_{covariance}_{number}", model.fit(x), random.few(columns))
