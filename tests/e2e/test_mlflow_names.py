"""Models by the names that a real MLflow server gives them, wherever it keeps their artifacts."""

import base64
import json
import urllib.error
import urllib.request

import pytest

import servers
from test_mlflow import predict
from test_pull import files, pull
from webserver import Reply, web


@pytest.mark.parametrize("place", ["bucket", "served", "local"])
def test_every_name_of_a_model_leads_to_it(tracking, mlflow_env, tmp_path, place):
    model = tracking.models[place]
    names = [f"models:/{place}/1", f"models:/{place}@champion", f"models:/{model['model']}", f"runs:/{model['run']}/model"]
    trees = []
    for number, name in enumerate([*names, names[0].replace(":/", "://")]):
        done = pull(mlflow_env, name, tmp_path / str(number))
        assert done.returncode == 0, done.stderr
        trees.append(files(tmp_path / str(number)))
    assert trees[0].keys() >= {"MLmodel", "model.skops", "requirements.txt"}
    assert all(tree == trees[0] for tree in trees)
    args = ["--model_name=m", f"--storage_uri={names[1]}", f"--cache_dir={tmp_path / 'cache'}"]
    with servers.stoker(*args, env=mlflow_env) as server:
        assert predict(server, "m", {"instances": model["rows"]}) == model["predictions"]
        resolved = server.event("model resolved")
        assert resolved["uri"] == names[1] and model["model"] in resolved["resolved"]


@pytest.mark.parametrize("place", ["bucket", "served"])
def test_artifacts_of_a_run(tracking, mlflow_env, tmp_path, place):
    run, large = tracking.models[place]["run"], bytes(range(256)) * 40_000
    folder, file = {"deep/large.bin": large, "ü 1.txt": b"odd"}, {"large.bin": large}
    for number, (path, expected) in enumerate([("data", folder), ("data/deep/large.bin", file)]):
        done = pull(mlflow_env, f"runs:/{run}/{path}", tmp_path / str(number))
        assert done.returncode == 0, done.stderr
        assert files(tmp_path / str(number)) == expected


def test_an_alias_that_moved_is_another_model(tracking, mlflow_env, tmp_path):
    """Its files have the same names, and most of them the same sizes."""
    model = tracking.models["moved"]

    def serve(uri):
        args = ["--model_name=m", f"--storage_uri={uri}", f"--cache_dir={tmp_path}"]
        with servers.stoker(*args, env=mlflow_env) as server:
            predictions = predict(server, "m", {"instances": model["rows"]})
            return predictions, server.event("model fetched")["cached"]

    def point(version):
        body = json.dumps({"name": "moved", "alias": "champion", "version": version}).encode()
        url = f"{tracking.url}/api/2.0/mlflow/registered-models/alias"
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=servers.PATIENCE):
            pass

    before, after = model["before"]["predictions"], model["predictions"]
    assert before != after
    assert serve("models:/moved@champion") == (after, False)
    point("1")
    assert serve("models:/moved@champion") == (before, False)
    point("2")
    assert serve("models:/moved@champion") == (after, True)
    args = ["--model_name=m", "--storage_uri=models:/moved@champion", f"--cache_dir={tmp_path}"]
    with servers.stoker(*args, env=mlflow_env) as server:
        for version, expected in [("1", before), ("2", after)]:
            point(version)
            assert server.post("/v2/repository/models/m/load", {}).status == 200
            assert predict(server, "m", {"instances": model["rows"]}) == expected


def test_behind_a_gate(tracking, mlflow_env, tmp_path):
    """As behind a proxy that asks who it is, with MLflow at a path of its own."""
    basic = "Basic " + base64.b64encode(b"ada:love").decode()

    def answer(asked):
        if asked.headers["Authorization"] not in (basic, "Bearer token"):
            return Reply(401, body=b"who are you?")
        try:
            url = tracking.url + asked.path.removeprefix("/mlflow")
            with urllib.request.urlopen(url, timeout=servers.PATIENCE) as answer:
                return Reply(body=answer.read())
        except urllib.error.HTTPError as error:
            return Reply(error.code, body=error.read())

    with web(answer) as gate:
        at_gate = mlflow_env | {"MLFLOW_TRACKING_URI": f"{gate.url}/mlflow/"}
        user = {"MLFLOW_TRACKING_USERNAME": "ada", "MLFLOW_TRACKING_PASSWORD": "love"}
        in_address = {"MLFLOW_TRACKING_URI": f"{gate.url.replace('//', '//ada:l%6Fve@')}/mlflow/"}
        for number, known in enumerate([user, {"MLFLOW_TRACKING_TOKEN": "token"}, in_address]):
            done = pull(at_gate | known, "models:/served@champion", tmp_path / str(number))
            assert done.returncode == 0, done.stderr
            assert "model.skops" in files(tmp_path / str(number))
        wrong = pull(at_gate | user | {"MLFLOW_TRACKING_PASSWORD": "hush"}, "models:/served/1", tmp_path / "none")
        assert "credentials are wrong" in wrong.stderr.splitlines()[-1] and "hush" not in wrong.stderr
        unknown = pull(at_gate, "models:/served/1", tmp_path / "none")
        assert "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in unknown.stderr.splitlines()[-1]
        elsewhere = pull(at_gate | user | {"MLFLOW_TRACKING_URI": f"{gate.url}/none"}, "models:/served/1", tmp_path)
        assert "is MLFLOW_TRACKING_URI right?" in elsewhere.stderr.splitlines()[-1]


def test_each_cause_of_failure_has_its_message(tracking, mlflow_env, tmp_path):
    def reason(uri, **changes):
        done = pull(mlflow_env | changes, uri, tmp_path)
        assert done.returncode == 1 and files(tmp_path) == {}
        return done.stderr.splitlines()[-1]

    run = tracking.models["served"]["run"]
    assert "set MLFLOW_TRACKING_URI" in reason("models:/served/1", MLFLOW_TRACKING_URI="")
    assert "is no http:// or https:// address" in reason("models:/served/1", MLFLOW_TRACKING_URI="databricks")
    assert "cannot be reached" in reason("models:/served/1", MLFLOW_TRACKING_URI="http://127.0.0.1:1")
    assert "Model Version (name=served, version=9) not found" in reason("models:/served/9")
    assert "alias nobody not found" in reason("models:/served@nobody")
    assert "it does not exist" in reason("models:/m-none")
    assert "Run with id=none not found" in reason("runs:/none/model")
    assert "there is no object below it" in reason(f"runs:/{run}/nothing")
    assert "expected models:/NAME/VERSION" in reason("models:/served/Production")
    denied = reason("models:/bucket/1", AWS_SECRET_ACCESS_KEY="wrong")
    assert "AWS_SECRET_ACCESS_KEY" in denied
