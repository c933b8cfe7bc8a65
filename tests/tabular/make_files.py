#!/usr/bin/env python3
"""Writes the model files that the tests read, into `files/`, each with a description of what is in it.

Run it twice, with the newest libraries and with old ones; each run writes its own files:

    pip install scikit-learn joblib skops cloudpickle lz4 pandas          # model.VARIANT.EXTENSION, model.json
    pip install scikit-learn==1.0.2 'numpy<1.24' 'joblib<1.1' skops==0.3.0 lz4 pandas  # old_model....

Files are committed, as models must stay readable that no library of today writes; a new run need not give the same
bytes.
"""

import bz2
import collections
import functools
import gzip
import io
import json
import lzma
import pathlib
import pickle
import pickletools
import sys
import warnings
import zipfile
import zlib

import joblib
import lz4.frame
import numpy
import skops.io
import sklearn

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from describe import describe  # noqa: E402

warnings.filterwarnings("ignore")
OLD = sklearn.__version__ < "1.1"
FILES = pathlib.Path(__file__).parent / "files"
RANDOM = numpy.random.RandomState(0)
X = RANDOM.rand(24, 3).round(3)
Y = (X[:, 0] + X[:, 1] > 1).astype(int)
WORDS = numpy.array(["no", "yes"])[Y]


def linear():
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression().fit(X, WORDS)


def forest():
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(n_estimators=2, max_depth=2, random_state=0).fit(X, WORDS)


def pipeline():
    import pandas
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

    table = pandas.DataFrame({"size": X[:, 0], "age": X[:, 1], "colour": numpy.array(["red", "blue"])[Y]})
    numbers = make_pipeline(SimpleImputer(), FunctionTransformer(numpy.log1p), StandardScaler())
    columns = ColumnTransformer(
        [("numbers", numbers, ["size", "age"]), ("words", OneHotEncoder(handle_unknown="ignore"), ["colour"])]
    )
    return make_pipeline(columns, LinearRegression()).fit(table, X[:, 2])


def boosting():
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(max_iter=2, max_leaf_nodes=4, min_samples_leaf=2, categorical_features=[2])
    return model.fit(numpy.c_[X[:, :2], Y], Y)


def gradient():
    from sklearn.ensemble import GradientBoostingRegressor

    return GradientBoostingRegressor(n_estimators=2, max_depth=1, loss="huber").fit(X, X[:, 0])


def neighbors():
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(algorithm="kd_tree", leaf_size=5).fit(X, Y)


def text():
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import SGDClassifier
    from sklearn.pipeline import make_pipeline

    loss = "log" if OLD else "log_loss"
    return make_pipeline(TfidfVectorizer(), SGDClassifier(loss=loss, random_state=0)).fit(["a cat", "the dog"] * 3, [0, 1] * 3)


def sparse():
    import scipy.sparse
    from sklearn.neighbors import KNeighborsRegressor

    return KNeighborsRegressor(algorithm="brute").fit(scipy.sparse.csr_matrix((X > 0.7) * X), Y)


def splines():
    from sklearn.preprocessing import SplineTransformer

    return SplineTransformer(n_knots=3).fit(X)


def plain():
    """Values of all kinds, which files of every protocol must give alike."""
    shared = [1, 2]
    cyclic = ["cycle"]
    cyclic.append(cyclic)
    record = numpy.dtype([("left", "<i8"), ("wide", "u1"), ("value", ">f4"), ("inner", [("x", "f8")])], align=True)
    return {
        "ints": [0, 1, 255, 256, 65535, 65536, -1, 2**31, -(2**31) - 1, 2**63 - 1, -(2**63), 2**63, 10**30, -(10**30)],
        "floats": [0.0, -1.5, 1e300, float("inf"), float("-inf"), float("nan")],
        "texts": ["", "a\nb\\'\"", "\u00e9\u20ac\U0001f600", "x" * 300],
        "bytes": [b"", b"\x00\xff", b"y" * 300, bytearray(b""), bytearray(b"\x00\xfe")],
        "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, (2, (3, 4, 5, 6)))),
        "sets": [set(), {1}, frozenset(), frozenset({"a"})],
        "dicts": [{}, {1: 2, None: True, 1.5: "x", (1, 2): []}, collections.OrderedDict(a=1), collections.defaultdict(list, b=2)],
        "shared": [shared, shared, {"again": shared}],
        "cyclic": cyclic,
        "calls": [slice(1, None, 2), range(3), complex(1, -2), functools.partial(numpy.log1p, 1, x=2)],
        "names": [numpy.float64, numpy.ndarray, int, dict, type(None), numpy.log1p, numpy.mean],
        "dtypes": [numpy.dtype("f8"), numpy.dtype(">i2"), numpy.dtype("U7"), numpy.dtype("O"), record],
        "scalars": [numpy.float32(1.5), numpy.int64(-3), numpy.bool_(True), numpy.str_("abc"), numpy.uint8(200)],
        "arrays": [
            numpy.arange(6.0).reshape(2, 3),
            numpy.asfortranarray(numpy.arange(6.0).reshape(2, 3)),
            numpy.arange(24, dtype="i2").reshape(2, 3, 4).T,
            numpy.arange(4, dtype=">f4"),
            numpy.array(2.5),
            numpy.zeros((0, 3)),
            numpy.array([True, False]),
            numpy.array(["a", "bcd"]),
            numpy.array([b"a", b"bc"]),
            numpy.array([1, "a", None, (2,)], dtype=object),
            numpy.asfortranarray(numpy.array([[1, 2, 3], ["a", "b", "c"]], dtype=object)),
            numpy.array([(1, 2, 3.5, (4.5,)), (-1, 255, -0.5, (0.25,))], dtype=record),
            numpy.array(["2020-01-01"], dtype="M8[D]"),
            numpy.arange(100.0)[::3],
            numpy.ma.MaskedArray([1.0, 2.0], [False, True]),
        ],
    }


def write(model, variant, data):
    prefix = "old_" if OLD else ""
    (FILES / f"{prefix}{model}.{variant}").write_bytes(data)


def dumped(value, **options):
    buffer = io.BytesIO()
    joblib.dump(value, buffer, **options)
    return buffer.getvalue()


def protocols(value):
    for protocol in range(6):
        yield f"p{protocol}.pkl", pickle.dumps(value, protocol)


def joblibs(value):
    raw = dumped(value)
    yield "joblib", raw
    # As `joblib.dump(..., compress=...)` writes them to files; the last was joblib's before 0.9.3.
    yield "gz.joblib", gzip.compress(raw, mtime=0)
    yield "z.joblib", zlib.compress(raw)
    yield "bz2.joblib", bz2.compress(raw)
    yield "xz.joblib", lzma.compress(raw)
    yield "lzma.joblib", lzma.compress(raw, lzma.FORMAT_ALONE)
    yield "zf.joblib", b"ZF" + hex(len(raw)).ljust(19).encode() + zlib.compress(raw)
    yield "lz4.joblib", lz4.frame.compress(raw)


def deflated(archive):
    """The same archive, smaller."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    return buffer.getvalue()


def variants(name, value):
    if name == "linear":
        yield from protocols(value)
        yield from joblibs(value)
    elif name == "plain":
        yield from (variant for variant in protocols(value) if not OLD or variant[0] in ("p2.pkl", "p4.pkl"))
        yield "joblib", dumped(value)
        yield "optimized.pkl", pickletools.optimize(pickle.dumps(value, 4))
    else:
        yield "joblib", dumped(value)
    if OLD:
        if name in ("linear", "text"):
            yield "v0.skops", deflated(skops.io.dumps(value))
        return
    if name in ("linear", "plain", "pipeline"):
        import cloudpickle

        yield "cloud.pkl", cloudpickle.dumps(value)
    if name == "linear":
        yield "skops", skops.io.dumps(value)
        yield "bz2.skops", skops.io.dumps(value, compression=zipfile.ZIP_BZIP2)
        yield "lzma.skops", skops.io.dumps(value, compression=zipfile.ZIP_LZMA)
    if name != "plain":
        yield "deflated.skops", skops.io.dumps(value, compression=zipfile.ZIP_DEFLATED)


def main():
    FILES.mkdir(exist_ok=True)
    models = [linear, forest, pipeline, boosting, gradient, neighbors, text, sparse, splines, plain]
    for make in models:
        if OLD and make in (sparse, splines):
            continue
        value = make()
        name = make.__name__
        for variant, data in variants(name, value):
            write(name, variant, data)
        write(name, "json", (json.dumps(describe(value), separators=(",", ":")) + "\n").encode())
    if not OLD:
        hostile()


def hostile():
    """Files of other people's programs, and of none."""
    import cloudpickle

    local = lambda x: x + 1  # noqa: E731
    write("refused_lambda", "cloud.pkl", cloudpickle.dumps({"function": local}))


if __name__ == "__main__":
    main()
