"""Credentials that nobody wrote into the environment, found where boto3 finds them: what KServe's initializer brings with
them, ours brings, too."""

import base64
import hashlib
import json
import time
from contextlib import suppress

import boto3
import jwt
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives.asymmetric import rsa

import faults
import servers
from test_initializer import MODELS, both
from test_pull import pull
from test_s3 import IRIS, assert_serves_iris
from webserver import Reply, web

CLIENT = "kubernetes"
# What MinIO calls the role of whoever has a token for this client.
ROLE = f"arn:minio:iam:::role/{base64.urlsafe_b64encode(hashlib.sha1(CLIENT.encode()).digest()).decode().rstrip('=')}"


class Issuer:
    """Of service accounts' tokens, as a cluster's API server is one."""

    def __init__(self):
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def answer(self, asked):
        if asked.path.startswith("/keys"):
            key = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
            body = {"keys": [key | {"kid": "one", "alg": "RS256", "use": "sig"}]}
        else:
            url = f"http://{asked.headers['Host']}"
            body = {"issuer": url, "jwks_uri": f"{url}/keys", "response_types_supported": ["id_token"]}
        return Reply(headers={"Content-Type": "application/json"}, body=json.dumps(body).encode())

    def token(self, seconds=3600):
        claims = {"iss": "cluster", "sub": "models:default", "aud": CLIENT, "exp": int(time.time()) + seconds}
        return jwt.encode(claims, self.key, algorithm="RS256", headers={"kid": "one"})


def lends(store, token):
    """Whether AWS's own client is given keys for the token."""
    sts = boto3.client("sts", endpoint_url=store.endpoint, region_name="us-east-1", config=Config(signature_version=UNSIGNED))
    with suppress(ClientError):
        return sts.assume_role_with_web_identity(RoleArn=ROLE, RoleSessionName="test", WebIdentityToken=token)


@pytest.fixture(scope="module")
def issuer():
    return Issuer()


@pytest.fixture(scope="module")
def store(issuer):
    """A MinIO server that lends keys to whoever has a token of the issuer."""
    with web(issuer.answer) as provider:
        known = {
            "MINIO_IDENTITY_OPENID_CONFIG_URL": f"{provider.url}/.well-known/openid-configuration",
            "MINIO_IDENTITY_OPENID_CLIENT_ID": CLIENT,
            "MINIO_IDENTITY_OPENID_ROLE_POLICY": "readwrite",
        }
        with servers.minio(env=known) as server:
            servers.fill(server.client(), "models", {"m/model.onnx": IRIS})
            # A moment after the store is ready.
            servers.eventually(lambda: lends(server, issuer.token()), "a token service")
            yield server


def web_identity(store, token_file):
    return {"AWS_ENDPOINT_URL": store.endpoint, "AWS_ROLE_ARN": ROLE, "AWS_WEB_IDENTITY_TOKEN_FILE": token_file}


@pytest.fixture
def token_file(issuer, tmp_path):
    path = tmp_path / "token"
    path.write_text(issuer.token() + "\n")
    return path


def test_a_web_identity(store, token_file, tmp_path):
    theirs, ours = both(tmp_path, web_identity(store, token_file), "s3://models/m", MODELS)
    assert theirs == ours and len(ours) == 2


def test_a_web_identity_of_a_profile(store, token_file, tmp_path):
    config = f"[profile irsa]\nrole_arn = {ROLE}\nweb_identity_token_file = {token_file}\nendpoint_url = {store.endpoint}\n"
    (tmp_path / "config").write_text(config)
    env = {"AWS_CONFIG_FILE": tmp_path / "config", "AWS_PROFILE": "irsa"}
    theirs, ours = both(tmp_path, env, "s3://models/m", MODELS)
    assert theirs == ours and len(ours) == 2


def test_a_server_and_a_handover_with_a_web_identity(store, token_file, tmp_path):
    env = web_identity(store, token_file)
    with servers.stoker("--model_name=iris", "--storage_uri=s3://models/m", f"--cache_dir={tmp_path}", env=env) as server:
        assert_serves_iris(server)
    assert pull(env, "stoker+s3://models/m", tmp_path / "handed").returncode == 0
    handed = json.loads((tmp_path / "handed/stoker-handover.json").read_text())
    # What lent keys sign is no longer valid than they are: an hour, as the token, instead of a week.
    assert 3000 < handed["expires"] - time.time() <= 3600
    with servers.stoker("--model_name=iris", f"--model_dir={tmp_path / 'handed'}") as server:
        assert_serves_iris(server)


def reason(env, tmp_path):
    return servers.failure("--model_name=m", "--storage_uri=s3://models/m", f"--cache_dir={tmp_path}", env=env)


def test_what_is_wrong_with_a_web_identity_is_said(store, issuer, token_file, tmp_path):
    env = web_identity(store, token_file)
    said = reason(env | {"AWS_ROLE_ARN": ROLE.replace("minio", "aws")}, tmp_path)
    assert f"cannot have credentials for arn:aws:iam:::role/" in said and f"from {store.endpoint}/: status 400" in said
    token_file.write_text(issuer.token(-60))
    said = reason(env, tmp_path)
    assert "cannot have credentials for" in said and "expired" in said
    token_file.unlink()
    assert f"AWS_WEB_IDENTITY_TOKEN_FILE {token_file}: No such file" in reason(env, tmp_path)


def agent(minio, **changes):
    """As EKS Pod Identity answers."""
    lent = {"AccessKeyId": minio.ACCESS_KEY, "SecretAccessKey": minio.SECRET_KEY, "Token": None, **changes}
    until = {"Expiration": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))}

    def answer(asked):
        if asked.headers.get("Authorization") != "pod":
            return Reply(403, body=b'{"code": "AccessDenied", "message": "who is that?"}')
        return Reply(headers={"Content-Type": "application/json"}, body=json.dumps(lent | until).encode())

    return web(answer)


@pytest.mark.parametrize("how", ["a file", "a variable"])
def test_an_agent(store, tmp_path, how):
    (tmp_path / "token").write_text("pod")
    token = {"a file": ("TOKEN_FILE", tmp_path / "token"), "a variable": ("TOKEN", "pod")}[how]
    with agent(store, Token="") as server:
        env = {"AWS_ENDPOINT_URL": store.endpoint, "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{server.url}/v1/credentials"}
        theirs, ours = both(tmp_path, env | {f"AWS_CONTAINER_AUTHORIZATION_{token[0]}": token[1]}, "s3://models/m", MODELS)
        assert theirs == ours and len(ours) == 2
        said = reason(env, tmp_path)
        assert f"credentials from the agent at {server.url}/v1/credentials: status 403: AccessDenied who is that?" in said
    env["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = "http://agent.example/"
    assert "http://agent.example/ is neither https nor an agent of this machine" in reason(env, tmp_path)


def test_a_profile(store, tmp_path):
    keys = "aws_access_key_id = {}\naws_secret_access_key = {}\n"
    right, wrong = keys.format(store.ACCESS_KEY, store.SECRET_KEY), keys.format("a", "b")
    (tmp_path / "home/.aws").mkdir(parents=True)
    (tmp_path / "home/.aws/credentials").write_text(f"[default]\n{wrong}[models]\n{right}")
    (tmp_path / "home/.aws/config").write_text(f"[profile models]\nregion = us-east-1\n{wrong}[profile sso]\nsso_session = x\n")
    env = {"AWS_ENDPOINT_URL": store.endpoint, "HOME": tmp_path / "home"}
    theirs, ours = both(tmp_path, env | {"AWS_PROFILE": "models"}, "s3://models/m", MODELS)
    assert theirs == ours and len(ours) == 2
    assert "the access key is unknown" in reason(env, tmp_path)
    assert 'there is no profile "none"' in reason(env | {"AWS_PROFILE": "none"}, tmp_path)
    assert 'the AWS profile "sso" has sso_session, which is not read' in reason(env | {"AWS_PROFILE": "sso"}, tmp_path)


def test_a_home_that_is_somebody_elses(store, tmp_path):
    """As in a pod whose user has none."""
    for name, home in {"a": "/dev/null", "b": "/nowhere"}.items():
        theirs, ours = both(tmp_path / name, store.env | {"HOME": home}, "s3://models/m", MODELS)
        assert theirs == ours and len(ours) == 2


def test_no_address_gives_its_password_away(tmp_path):
    for variable, uri in {"MLFLOW_TRACKING_URI": "models:/m/1", "HF_ENDPOINT": "hf://a/b"}.items():
        for wrong in ["http://user:hush#pw@mlflow", "user:hush@mlflow", "http://user:hush/pw@mlflow:x"]:
            done = pull({variable: wrong}, uri, tmp_path)
            assert (done.returncode, "hush" in done.stderr) == (1, False), done.stderr


def test_a_lender_that_is_silent_later_holds_nobody_up(store, tmp_path):
    """The keys from before are good for a while."""
    asked = []

    def answer(request):
        asked.append(request)
        if len(asked) > 1:
            time.sleep(servers.PATIENCE / 2)
        until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 4))
        lent = {"AccessKeyId": store.ACCESS_KEY, "SecretAccessKey": store.SECRET_KEY, "Token": "", "Expiration": until}
        return Reply(headers={"Content-Type": "application/json"}, body=json.dumps(lent).encode())

    servers.fill(store.client(), "many", {f"m/{number}": bytes(1000) for number in range(600)})
    with web(answer) as server, faults.proxy(store.port) as proxy:
        proxy.script("read", faults.slow(2000))
        env = {"AWS_ENDPOINT_URL": proxy.url, "AWS_CONTAINER_CREDENTIALS_FULL_URI": server.url, "S3_READ_TIMEOUT": 3}
        begun = time.monotonic()
        done = pull(env, "s3://many/m", tmp_path)
        assert done.returncode == 0, done.stderr
        assert len(asked) > 1 and time.monotonic() - begun < 12


def test_keys_that_the_store_does_not_know_are_asked_for_again(store, tmp_path):
    """As after a rotation: the agent has others meanwhile."""
    asked = []

    def answer(_):
        asked.append(time.time())
        identity = "gone" if len(asked) == 1 else store.ACCESS_KEY
        until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
        lent = {"AccessKeyId": identity, "SecretAccessKey": store.SECRET_KEY, "Token": None, "Expiration": until}
        return Reply(headers={"Content-Type": "application/json"}, body=json.dumps(lent).encode())

    with web(answer) as provider:
        env = {"AWS_ENDPOINT_URL": store.endpoint, "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{provider.url}/keys"}
        pulled = pull(env, "s3://models/m", tmp_path / "model")
        assert pulled.returncode == 0, pulled.stderr
        assert len(asked) == 2
    with agent(store, AccessKeyId="nobody") as provider:
        env |= {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{provider.url}/keys", "AWS_CONTAINER_AUTHORIZATION_TOKEN": "pod"}
        said = reason(env, tmp_path)
    assert f"the access key is unknown (credentials from the agent at {provider.url}/keys)" in said
