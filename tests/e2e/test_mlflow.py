"""Models logged with MLflow into a real S3 server, served as they lie there, untouched."""

from contextlib import contextmanager

import pytest

import servers
from tracking import BUCKET, log, s3_env


@pytest.fixture(scope="module")
def models(minio, tracking, tmp_path_factory):
    """Everything that log_models.py logs, by name."""
    return log(tracking, s3_env(minio), "log_models.py", tmp_path_factory.mktemp("mlflow"))


@contextmanager
def served(minio, tmp_path, name, uri, *args):
    args = [f"--model_name={name}", f"--storage_uri={uri}", f"--cache_dir={tmp_path}", *args]
    with servers.stoker(*args, env=minio.env) as server:
        yield server


def predict(server, name, body):
    answer = server.post(f"/v1/models/{name}:predict", body)
    assert answer.status == 200, answer.body
    return answer.json()["predictions"]


@pytest.mark.parametrize("name", ["iris-bare-metal", "iris-skops"])
def test_the_inference_service_of_the_readme(minio, models, tmp_path, name):
    """storageUri: s3://mlflow-artifacts/models/iris-bare-metal/1, the artifact copied there byte for byte."""
    model = models[name]
    bucket, _, prefix = model["uri"].removeprefix("s3://").partition("/")
    s3 = minio.client()
    for entry in s3.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]:
        promoted = entry["Key"].replace(prefix, "models/iris-bare-metal/1", 1)
        s3.copy_object(Bucket=BUCKET, Key=promoted, CopySource={"Bucket": bucket, "Key": entry["Key"]})
    with served(minio, tmp_path, "iris-bare-metal", f"s3://{BUCKET}/models/iris-bare-metal/1") as server:
        assert predict(server, "iris-bare-metal", {"instances": [[5.1, 3.5, 1.4, 0.2]]}) == [0]
        assert predict(server, "iris-bare-metal", {"instances": model["matrix"]}) == model["predictions"]
    for entry in s3.list_objects_v2(Bucket=BUCKET, Prefix="models/iris-bare-metal/1")["Contents"]:
        s3.delete_object(Bucket=BUCKET, Key=entry["Key"])


@pytest.mark.parametrize(
    "name",
    ["iris-bare-metal", "iris-skops", "iris-signature", "iris-mixed", "iris-xgboost", "iris-lightgbm"],
)
def test_every_flavor_is_served_from_where_the_registry_says(minio, models, tmp_path, name):
    model = models[name]
    with served(minio, tmp_path, name, model["uri"]) as server:
        by_row, by_list = {"instances": model["records"]}, {"instances": model["matrix"]}
        names = model["records"][0].keys()
        by_column = {"inputs": {name: [record[name] for record in model["records"]] for name in names}}
        for body in [by_row, by_list, by_column]:
            assert predict(server, name, body) == model["predictions"], body
        answer = server.post(f"/v2/models/{name}/infer", v2(model["records"], ["predict_proba"]))
        assert answer.status == 200, answer.body
        (output,) = answer.json()["outputs"]
        expected = [value for row in model["probabilities"] for value in row]
        assert output["data"] == pytest.approx(expected, rel=1e-6 if name == "iris-xgboost" else 1e-12)


def v2(records, outputs):
    """One tensor for each column."""

    def column(name):
        values = [record[name] for record in records]
        datatype = "BYTES" if isinstance(values[0], str) else "FP64"
        return {"name": name, "datatype": datatype, "shape": [len(values)], "data": values}

    inputs = [column(name) for name in records[0]]
    return {"inputs": inputs, "outputs": [{"name": name} for name in outputs]}


def test_a_signature_becomes_the_metadata(minio, models, tmp_path):
    with served(minio, tmp_path, "m", models["iris-mixed"]["uri"]) as server:
        inputs = server.get("/v2/models/m").json()["inputs"]
        assert [(tensor["name"], tensor["datatype"], tensor["shape"]) for tensor in inputs] == [
            ("sepal length (cm)", "FP64", [-1]),
            ("sepal width (cm)", "FP64", [-1]),
            ("petal length (cm)", "FP64", [-1]),
            ("petal width (cm)", "FP64", [-1]),
            ("site", "BYTES", [-1]),
        ]


def test_probabilities_on_request(minio, models, tmp_path):
    model = models["iris-bare-metal"]
    with served(minio, tmp_path, "m", model["uri"], "--predict_proba") as server:
        for got, expected in zip(predict(server, "m", {"instances": model["matrix"]}), model["probabilities"]):
            assert got == pytest.approx(expected, rel=1e-12)


def test_a_forest_explains_itself(minio, models, tmp_path):
    model = models["iris-bare-metal"]
    with served(minio, tmp_path, "m", model["uri"]) as server:
        answer = server.post("/v1/models/m:explain", {"instances": model["records"]}).json()
        assert answer["feature_names"] == list(model["records"][0])
        for explanation, probabilities in zip(answer["explanations"], model["probabilities"]):
            sums = [base + sum(values) for base, values in zip(explanation["base_values"], explanation["shap_values"])]
            assert sums == pytest.approx(probabilities, abs=1e-6)
