"""Models from plain web servers: what is read how, whom secrets are told, and what is said when it fails."""

import functools
import http.server
import json
import shutil
import subprocess
from pathlib import Path

import pytest

import servers
from test_pull import files, pull
from test_s3 import BIG, IRIS, assert_serves_iris
from webserver import Reply, ranged, web

STRONG = {"ETag": '"a"'}
PART = 1 << 20  # that is asked for at once, of so little
PARTS = len(BIG) // PART


def pulled(server, folder, path="/models/model.onnx", env=None):
    done = pull(env or {}, f"{server.url}{path}", folder)
    assert done.returncode == 0, done.stderr
    return files(folder)


def reason(server, folder, path="/model.onnx", env=None):
    done = pull(env or {}, f"{server.url}{path}", folder)
    assert done.returncode == 1 and files(folder) == {}
    return done.stderr.splitlines()[-1]


def test_ranges_of_one_object(tmp_path):
    with web(lambda request: ranged(request, BIG, STRONG)) as server:
        assert pulled(server, tmp_path) == {"model.onnx": BIG}
        assert len(server.gets()) == PARTS
        assert all(request.headers["If-Range"] == '"a"' for request in server.gets())


@pytest.mark.parametrize("headers", [{"ETag": 'W/"a"', "Accept-Ranges": "bytes"}, STRONG, {"Last-Modified": "then"}])
def test_without_safe_ranges_it_comes_in_one(tmp_path, headers):
    with web(lambda request: Reply(headers=headers, body=BIG)) as server:
        assert pulled(server, tmp_path) == {"model.onnx": BIG}
        assert [request.headers["Range"] for request in server.gets()] == [None]


@pytest.mark.parametrize("length", ["", None], ids=["no length", "nothing that identifies it"])
def test_what_nobody_describes_is_read_to_know_it(tmp_path, length):
    with web(lambda request: Reply(body=BIG, length=length)) as server:
        assert pulled(server, tmp_path) == {"model.onnx": BIG}
        assert len(server.gets()) == 1


@pytest.mark.parametrize("name", ["m.zip", "m.tar.gz"])
def test_archives_are_unpacked_with_and_without_ranges(tmp_path, name):
    (tmp_path / "packed/deep").mkdir(parents=True)
    (tmp_path / "packed/deep/model.onnx").write_bytes(IRIS)
    kind = {"m.zip": "zip", "m.tar.gz": "gztar"}[name]
    archive = Path(shutil.make_archive(str(tmp_path / "m"), kind, tmp_path / "packed", "deep")).read_bytes()
    unranged = Reply(headers=STRONG, body=archive)
    for number, answer in enumerate([lambda request: ranged(request, archive, STRONG), lambda request: unranged]):
        with web(answer) as server:
            assert pulled(server, tmp_path / str(number), f"/{name}?x=y") == {"deep/model.onnx": IRIS}


def test_pythons_own_server(tmp_path):
    """The real one, which speaks HTTP/1.0 and knows neither tags nor ranges."""
    (tmp_path / "served").mkdir()
    (tmp_path / "served/ü +.onnx").write_bytes(IRIS)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with web(None) as server:
        server.RequestHandlerClass = functools.partial(Quiet, directory=tmp_path / "served")
        assert pulled(server, tmp_path / "models", "/%C3%BC%20+.onnx?x=y") == {"ü +.onnx": IRIS}
        assert "status 404: it does not exist" in reason(server, tmp_path / "none", "/nothing.onnx?hush")
        assert "hush" not in reason(server, tmp_path / "none", "/nothing.onnx?hush")


@pytest.mark.parametrize("status", [403, 404, 405, 501])
def test_a_server_that_refuses_head(tmp_path, status):
    """As one does that signs addresses for GET alone."""
    with web(lambda request: Reply(status) if request.command == "HEAD" else ranged(request, IRIS, STRONG)) as server:
        assert pulled(server, tmp_path) == {"model.onnx": IRIS}


def test_what_breaks_goes_on(tmp_path):
    broken = set()

    def answer(ranges, request):
        reply = ranged(request, BIG, STRONG) if ranges else Reply(headers=STRONG, body=BIG)
        place = request.headers["Range"] or "bytes=0-"
        is_rest = int(place[6:].split("-")[0]) % PART
        if request.command == "GET" and not is_rest and place not in broken:
            broken.add(place)
            reply.breaks_after = 300_000
        return reply

    for ranges in [True, False]:
        broken.clear()
        with web(functools.partial(answer, ranges)) as server:
            assert pulled(server, tmp_path) == {"model.onnx": BIG}
            # All parts, and the rests of them; or twice all of it.
            assert len({request.headers["Range"] for request in server.gets()}) == (2 * PARTS if ranges else 1)
            assert len(server.gets()) == (2 * PARTS if ranges else 2)


@pytest.mark.parametrize("expires", [False, True])
def test_a_detour_is_remembered_while_it_works(tmp_path, expires):
    used, broken = set(), set()

    def blob(request):
        first = request.headers["Range"] and int(request.headers["Range"][6:].split("-")[0])
        if expires and request.path in used:
            return Reply(403)
        used.add(request.path)
        reply = ranged(request, BIG, STRONG)
        if request.command == "GET" and first % PART == 0 and first not in broken:
            broken.add(first)
            reply.breaks_after = 300_000
        return reply

    with web(blob) as cdn:
        with web(lambda request: Reply(302, {"Location": f"{cdn.url}/blob?signature={len(server.asked)}"})) as server:
            assert pulled(server, tmp_path) == {"model.onnx": BIG}
            # All parts, many at the same time, and the rests of them.
            assert len(broken) == PARTS
            assert len(server.gets()) == 2 * PARTS if expires else len(server.gets()) <= PARTS


@pytest.mark.parametrize("ranges", [True, False])
def test_another_file_in_its_place_is_noticed(tmp_path, ranges):
    def answer(request):
        tag = {"ETag": '"a"' if len(server.asked) < 3 else '"b"'}
        return ranged(request, BIG, tag) if ranges else Reply(headers=tag, body=BIG, breaks_after=1_000_000)

    with web(answer) as server:
        done = pull({}, f"{server.url}/model.onnx", tmp_path)
    assert done.returncode == 1
    assert "was replaced while it was being read" in done.stderr.splitlines()[-1]


def test_secrets_are_told_to_their_host_alone(tmp_path):
    env = {"127.0.0.1-headers": json.dumps({"Authorization": "Bearer hush", "X-Key": "k"})}
    with web(lambda request: ranged(request, IRIS, STRONG)) as cdn:

        def answer(request):
            if request.headers["Authorization"] != "Bearer hush":
                return Reply(401)
            there = {"/model.onnx": "here/x", "/here/x": f"{cdn.url}/y?signed", "/own": "/kept", "/kept": None}
            to = there[request.path]
            return Reply(307, {"Location": to}, b"this way") if to else ranged(request, IRIS, STRONG)

        with web(answer) as server:
            assert pulled(server, tmp_path, "/model.onnx", env) == {"model.onnx": IRIS}
            assert {request.headers["X-Key"] for request in server.asked} == {"k"}
            assert {request.path for request in cdn.asked} == {"/y?signed"}
            assert {request.headers["X-Key"] or request.headers["Authorization"] for request in cdn.asked} == {None}
            assert pulled(server, tmp_path / "own", "/own", env) == {"own": IRIS}
            assert "status 401: access is denied" in reason(server, tmp_path / "none")
            wrong = reason(server, tmp_path / "none", env={"127.0.0.1-headers": "hush"})
            assert "127.0.0.1-headers should be a JSON object" in wrong


def test_each_cause_of_failure_has_its_message(tmp_path):
    page = Reply(headers={"Content-Type": "text/html; charset=utf-8"}, body=b"<html>please log in</html>")
    replies = {
        "/403": Reply(403),
        "/503": Reply(503, {"Retry-After": "0"}),
        "/loop": Reply(302, {"Location": "/loop"}),
        "/ftp": Reply(302, {"Location": "ftp://h/x"}),
        "/page": page,
        "/short": Reply(headers=STRONG, body=b"x", length="9", breaks_after=1),
    }
    with web(lambda request: replies[request.path]) as server:
        for path, message in {
            "/403": "access is denied",
            "/503": "the server is overloaded, also after retries",
            "/loop": "more than 10 redirects",
            "/ftp": "a redirect to what is no http:// or https:// address",
            "/page": "a web page, not a file",
        }.items():
            said = reason(server, tmp_path, path)
            assert f"{server.url}{path}: " in said and message in said
        begun = len(server.asked)
        done = pull({}, f"{server.url}/short", tmp_path)
        assert "closed the connection" in done.stderr.splitlines()[-1]
        assert len(server.asked) - begun == 1 + 3


def test_https(tmp_path, certificates):
    env = {"AWS_CA_BUNDLE": certificates / "ca.pem"}

    def answer(request):
        if request.path == "/down":
            return Reply(302, {"Location": "http://127.0.0.1:1/model.onnx"})
        return ranged(request, BIG, STRONG)

    with web(answer, certificates) as server:
        assert pulled(server, tmp_path, env=env) == {"model.onnx": BIG}
        assert "is not trusted" in reason(server, tmp_path / "none")
        assert "a redirect from https to plain http" in reason(server, tmp_path / "none", "/down", env)
        with web(lambda request: Reply(302, {"Location": f"{server.url}/m"})) as plain:
            assert pulled(plain, tmp_path / "up", env=env) == {"model.onnx": BIG}


@pytest.mark.parametrize("length", [None, ""])
def test_a_server_of_such_a_model(tmp_path, length):
    content = [IRIS]

    def serve(server):
        args = ["--model_name=iris", f"--storage_uri={server.url}/model.onnx?hush", f"--cache_dir={tmp_path}"]
        with servers.stoker(*args) as stoker:
            assert_serves_iris(stoker)
            assert "hush" not in stoker.log()
            return stoker.event("model fetched")["cached"]

    with web(lambda request: Reply(headers={"ETag": f'"{len(content)}"'}, body=content[-1], length=length)) as server:
        assert [serve(server), serve(server)] == [False, True]


def test_a_query_says_which_file_it_is(tmp_path):
    """Unless it only signs for a while. It is not what goes into Git."""

    def answer(request):
        other = "other" in request.path
        return Reply(headers={"Last-Modified": "then"}, body=IRIS if not other else b"x" * len(IRIS))

    with web(answer) as server:
        cached = []
        for query in ["", "?a=1", "?a=1&X-Amz-Signature=b", "?a=1&x-amz-signature=c", "?other"]:
            flags = ["--model_name=iris", f"--storage_uri={server.url}/model.onnx{query}", f"--cache_dir={tmp_path}"]
            if query == "?other":
                assert "onnx" in servers.failure(*flags)
                continue
            with servers.stoker(*flags) as stoker:
                assert_serves_iris(stoker)
                cached.append(stoker.event("model fetched")["cached"])
        assert cached == [False, False, True, True]
        command = [servers.STOKER, "pin", f"{server.url}/model.onnx?hush", f"--cache_dir={tmp_path}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=servers.PATIENCE)
        assert done.returncode == 1 and "query is not pinned" in done.stderr and "hush" not in done.stderr
