"""Vectorizers of texts."""

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction import text
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from . import Case

WORDS = """the a I x We're naïve café CAFÉ Straße ΣΊΣΥΦΟΣ İstanbul don't e-mail foo_bar 42 x² ½ हिन्दी 日本語 中文字 ﬁne
    great terrible movie Film plot, acting... was is not very quite; (boring) fun! :-) http://a.b/c?d=e #tag @user
    re\u0301sume\u0301 résumé A1 b2b 3.14 \x1c""".split(" ")


def texts(random, rows):
    """Sentences with all that is odd about words."""
    sentences = [" ".join(random.rng.choice(WORDS, random.rng.integers(1, 15))) for _ in range(rows)]
    sentences[1] = ""
    sentences[2] = "  two  spaces\t\tand\na\x1c\x1dline\u00a0\u2003no-break "
    return sentences


def options(random):
    yield text.CountVectorizer, {}
    yield text.CountVectorizer, {"ngram_range": (1, 3), "stop_words": "english", "binary": True}
    yield text.CountVectorizer, {"analyzer": "char", "ngram_range": (2, 3), "strip_accents": "unicode", "max_features": 30}
    yield text.CountVectorizer, {"token_pattern": r"(?u)#(\w+)|\d", "stop_words": ["tag"], "lowercase": False}
    yield text.TfidfVectorizer, {"strip_accents": "ascii", "sublinear_tf": True}
    yield text.TfidfVectorizer, {"analyzer": "char_wb", "ngram_range": (1, 4), "norm": "l1", "max_features": 40}
    yield text.TfidfVectorizer, {"use_idf": False, "norm": None, "token_pattern": r"[\w']+", "dtype": np.float64}
    yield text.HashingVectorizer, {"n_features": 32, "strip_accents": "unicode"}
    yield text.HashingVectorizer, {"n_features": 7, "alternate_sign": False, "norm": None, "ngram_range": (2, 2)}
    if not random.wide:
        return
    yield text.TfidfVectorizer, {"dtype": np.float32, "ngram_range": (1, 2)}
    yield text.TfidfVectorizer, {"smooth_idf": False, "min_df": 2, "max_df": 0.8}
    yield text.HashingVectorizer, {"n_features": 5, "binary": True, "norm": "l2"}
    yield text.HashingVectorizer, {"n_features": 2**20, "norm": "l1", "dtype": np.float32}
    yield text.CountVectorizer, {"vocabulary": {"plot": 0, "acting": 2, "fun": 1}}
    for pattern in [r"\S+", r"(?u)\b\w+\b", r"[a-zA-Z]+", r"\w{3,}", r"\b\w{3,}\b", r"[^\s,;.]+", r"\w+|[^\w\s]+", r"(?i)[a-z]\w+"]:
        yield text.CountVectorizer, {"token_pattern": pattern}
    for _ in range(20):
        pick = lambda *choices: choices[random.rng.integers(len(choices))]
        least = pick(1, 1, 2, 3)
        yield pick(text.CountVectorizer, text.TfidfVectorizer), {
            "analyzer": pick("word", "word", "char", "char_wb"),
            "ngram_range": (least, least + pick(0, 1, 2)),
            "lowercase": pick(True, False),
            "strip_accents": pick(None, "ascii", "unicode"),
            "binary": pick(True, False),
            "stop_words": pick(None, "english", ["movie", "don"]),
        }


def cases(random):
    for number, (estimator, given) in enumerate(options(random)):
        model = estimator(**given).fit(texts(random, 60 if random.wide else 9))
        name = f"{estimator.__name__}_{number}"
        # Singles are added in an order of their own.
        single = given.get("dtype") == np.float32
        yield Case(name, model, texts(random, 12 if random.wide else 5), tolerance=1e-6 if single else 1e-12)
    y = random.rng.integers(0, 3, 60)
    transformer = make_pipeline(text.CountVectorizer(max_features=20), text.TfidfTransformer(), LogisticRegression())
    yield Case("pipeline", transformer.fit(texts(random, 60), y), texts(random, 5))
    dense = text.TfidfTransformer(sublinear_tf=True).fit(random.rng.integers(0, 3, (20, 4)))
    yield Case("dense", dense, random.rng.integers(0, 3, (5, 4)))
    for number in range(4 if random.wide else 1):
        def frame(rows):
            return random.frame(rows).assign(review=texts(random, rows))
        union = FeatureUnion([
            ("words", text.TfidfVectorizer(max_features=10)),
            ("characters", text.HashingVectorizer(n_features=16, analyzer="char_wb", ngram_range=(3, 3))),
        ])
        columns = ColumnTransformer(
            [
                ("review", [union, text.CountVectorizer(max_features=10)][number % 2], "review"),
                ("city", OneHotEncoder(), ["city", "plan"]),
                ("numbers", StandardScaler(), ["age", "income"]),
            ],
            sparse_threshold=0.3 if number < 2 else 1.0,
        )
        model = make_pipeline(columns, SGDClassifier(loss="modified_huber", random_state=0))
        yield Case(f"frame_{number}", model.fit(frame(60), y), frame(6))
    for number, dtype in enumerate([np.float32, "int32"]):
        model = text.CountVectorizer(dtype=dtype, max_features=5).fit(texts(random, 9))
        yield Case(f"typed_{number}", model, texts(random, 4))
    model = text.TfidfVectorizer(dtype=int, max_features=5).fit(texts(random, 9))
    yield Case("typed_weights", model, texts(random, 4))
