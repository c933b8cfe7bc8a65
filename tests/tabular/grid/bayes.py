"""Naive Bayes."""

import numpy as np
from scipy import sparse
from sklearn import naive_bayes

from . import Case


def counts(random, rows, columns):
    return random.rng.poisson(0.8, size=(rows, columns))


def cases(random):
    for number in range(6 if random.wide else 1):
        columns = int(random.rng.integers(2, 60)) if number else 5
        for classes in [2, 3, 9] if random.wide else [3]:
            x, y = random.classification(rows=80, columns=columns, classes=classes)
            name = f"{classes}_{number}"
            labels = np.array([f"class {label}" for label in range(classes)])[y]
            yield Case(f"GaussianNB_{name}", naive_bayes.GaussianNB().fit(x, labels), random.few(columns))
            words, more = counts(random, 80, columns), counts(random, 10 if random.wide else 3, columns)
            models = {
                "Multinomial": naive_bayes.MultinomialNB(),
                "Multinomial_no_prior": naive_bayes.MultinomialNB(alpha=0.1, fit_prior=False),
                "Complement": naive_bayes.ComplementNB(norm=True),
                "Bernoulli": naive_bayes.BernoulliNB(),
                "Bernoulli_threshold": naive_bayes.BernoulliNB(binarize=1.0, alpha=0.5),
            }
            for kind, model in models.items():
                yield Case(f"{kind}_{name}", model.fit(words, y), more)
                if classes == 3:
                    yield Case(f"{kind}_{name}_sparse", model, sparse.csr_matrix(more.astype(float)))
            model = naive_bayes.BernoulliNB(binarize=None).fit(np.minimum(words, 1), y)
            yield Case(f"Bernoulli_bits_{name}", model, np.minimum(more, 1).astype(np.float32))
            model = naive_bayes.CategoricalNB(min_categories=12).fit(words, y)
            yield Case(f"Categorical_{name}", model, more + random.rng.random(more.shape))
    x, y = random.classification()
    yield Case("GaussianNB_priors", naive_bayes.GaussianNB(priors=[0.2, 0.3, 0.5]).fit(x, y), random.few() * 30)
    only = naive_bayes.ComplementNB().fit(counts(random, 9, 3), np.ones(9))
    yield Case("ComplementNB_one_class", only, counts(random, 5, 3))
