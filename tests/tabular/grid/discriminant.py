"""Linear and quadratic discriminant analysis, and the nearest centroid."""

import numpy as np
from sklearn import discriminant_analysis, neighbors

from . import Case


def cases(random):
    for number in range(5 if random.wide else 1):
        columns = int(random.rng.integers(2, 20)) if number else 4
        for classes in [2, 3] + [7] * random.wide:
            x, y = random.classification(rows=400 if random.wide else 60, columns=columns, classes=classes)
            y[: 30 * classes] = np.arange(30 * classes) % classes if random.wide else y[: 30 * classes]
            for name, model in {
                "svd": discriminant_analysis.LinearDiscriminantAnalysis(),
                "eigen": discriminant_analysis.LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto"),
                "lsqr": discriminant_analysis.LinearDiscriminantAnalysis(solver="lsqr", n_components=1),
                "one": discriminant_analysis.LinearDiscriminantAnalysis(n_components=1),
            }.items():
                model.fit(x, y)
                case = Case(f"LinearDiscriminantAnalysis_{name}_{classes}_{number}", model, random.few(columns))
                if name == "lsqr":
                    case.methods.remove("transform")
                yield case
            model = discriminant_analysis.QuadraticDiscriminantAnalysis(reg_param=0.1)
            yield Case(f"QuadraticDiscriminantAnalysis_{classes}_{number}", model.fit(x, y), random.few(columns))
            if classes == 2 and not random.wide:
                continue
            options = [{}, {"metric": "manhattan"}, {"shrink_threshold": 0.2}]
            if "priors" in neighbors.NearestCentroid().get_params():
                options += [{"priors": "empirical"}, {"priors": "empirical", "metric": "manhattan"}]
            for place, option in enumerate(options):
                model = neighbors.NearestCentroid(**option).fit(x, np.array(list("abcdefg"))[y])
                yield Case(f"NearestCentroid_{place}_{classes}_{number}", model, random.few(columns))
    x, _ = random.classification(columns=4)
    model = discriminant_analysis.LinearDiscriminantAnalysis().fit(x, np.full(len(x), 7))
    yield Case("LinearDiscriminantAnalysis_single", model, random.few(4), ["predict", "decision_function"])
