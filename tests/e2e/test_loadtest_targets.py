"""The load generator against servers elsewhere: behind TLS, a prefix, other ports; and with inputs of every datatype."""

import http.server
import json
import os
import socket
import socketserver
import ssl
import subprocess
import threading

import pytest

from forward import pump
from models import MODELS
from servers import stoker
from test_loadtest import LOADTEST, LONGEST_SECONDS, begin, play, scenario
from webserver import serving


@pytest.fixture(scope="module")
def address():
    with stoker("--model_name=iris", f"--model_dir={MODELS / 'iris'}") as server:
        yield server.event("listening")["http"]


class Relay(socketserver.ThreadingTCPServer):
    """Another port of a server; with certificates, one with TLS, over which HTTP/1 or HTTP/2 is spoken."""

    daemon_threads = True

    def __init__(self, address, certificates=None):
        super().__init__(("127.0.0.1", 0), RelayHandler)
        self.upstream, self.connections, self.tls = address, 0, None
        self.address = f"127.0.0.1:{self.server_address[1]}"
        if certificates:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(certificates / "public.crt", certificates / "private.key")
            self.tls.set_alpn_protocols(["h2", "http/1.1"])

    def handle_error(self, request, client_address):
        pass  # clients that do not trust hang up


class RelayHandler(socketserver.BaseRequestHandler):
    def handle(self):
        self.server.connections += 1
        client = self.server.tls.wrap_socket(self.request, server_side=True) if self.server.tls else self.request
        host, port = self.server.upstream.split(":")
        with socket.create_connection((host, int(port))) as upstream:
            back = threading.Thread(target=pump, args=(upstream, client), daemon=True)
            back.start()
            pump(client, upstream)
            back.join()


class Triton(http.server.ThreadingHTTPServer):
    def __init__(self, handler=None):
        super().__init__(("127.0.0.1", 0), handler or TritonHandler)
        self.asked = []


class TritonHandler(http.server.BaseHTTPRequestHandler):
    """Answers everything, and counts as Triton does: 3 rows in each of its batches."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append(self.path)
        done = len(self.server.asked)
        page = f"""nv_inference_count{{model="m"}} {3 * done}
nv_inference_exec_count{{model="m"}} {done}
nv_inference_queue_duration_us{{model="m"}} {7 * done}
nv_inference_pending_request_count{{model="m"}} 2
""".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    do_POST = do_GET

    def log_message(self, *args):
        pass


def outcomes(run):
    """Of each kind of traffic of the first step."""
    return {name: list(summary["outcomes"]) for name, summary in run["steps"][0]["traffic"]}


def test_tls(address, certificates, tmp_path):
    with serving(Relay(address, certificates)) as relay:
        for protocol in ("v2-binary", "grpc"):
            command = ["run", scenario(tmp_path, 1, protocol=protocol), "--target", f"https://{relay.address}", "--out", "-"]
            trusting = os.environ | {"SSL_CERT_FILE": str(certificates / "ca.pem")}
            done = subprocess.run([LOADTEST, *command], env=trusting, capture_output=True, text=True, timeout=LONGEST_SECONDS)
            assert done.returncode == 0, done.stderr
            assert outcomes(json.loads(done.stdout)) == {"iris": ["200"]}
            assert relay.connections > 0
        distrusting = begin(*command)
        _, said = distrusting.communicate(timeout=LONGEST_SECONDS)
        assert distrusting.returncode == 1 and "invalid peer certificate" in said, said


def test_grpc_may_have_a_port_of_its_own(address, tmp_path):
    with serving(Relay(address)) as relay:
        command = ["run", scenario(tmp_path, 1, protocol="grpc"), "--out", "-"]
        play(*command, "--target", f"http://{address}")
        assert relay.connections == 0
        # Nobody listens at the target itself.
        run = play(*command, "--target", "http://127.0.0.1:1", "--grpc", relay.address).stdout
        assert relay.connections > 0 and outcomes(json.loads(run)) == {"iris": ["200"]}


def test_a_prefix_and_triton_s_metrics(tmp_path):
    """A server with a prefix before its paths, whose metrics are Triton's: 3 rows in each of its batches."""
    with serving(Triton()) as server, serving(Triton()) as metrics:
        at = [f"http://127.0.0.1:{other.server_address[1]}" for other in (server, metrics)]
        ports = ["--target", f"{at[0]}/some/prefix/", "--metrics", at[1]]
        run = json.loads(play("run", scenario(tmp_path, 1), *ports, "--out", "-").stdout)
    assert set(server.asked) == {"/some/prefix/v2/models/iris/infer"} and set(metrics.asked) == {"/metrics"}
    (step,) = run["steps"]
    assert step["mean_batch_rows"] == 3
    counted = step["servers"][0]["counted"]
    assert counted['nv_inference_queue_duration_us{model="m"}'] > 0
    assert not any("pending" in series for series in counted)


class RefusingHandler(TritonHandler):
    """Answers the first request that it gets, and refuses all others."""

    def send_response(self, status):
        super().send_response(status if len(self.server.asked) == 1 else 503)


@pytest.mark.parametrize(
    "load, reason",
    [
        ("open = { arrivals = 'constant', of_capacity = 0.5 }", "the capacity that a step before has found is 0"),
        ("search = { arrivals = 'constant' }", "requests a second hold the objective: 0.0 % are answered in time"),
    ],
)
def test_a_step_that_cannot_be_done_is_said_and_those_before_it_are_kept(load, reason, tmp_path):
    file = scenario(tmp_path, 1)
    more = f"[[steps]]\nname = 'full'\nseconds = 1\nload.closed = {{ connections = 2 }}\n"
    more += f"[[steps]]\nname = 'last'\nseconds = 0.5\nload.{load}\n"
    file.write_text(file.read_text() + more)
    with serving(Triton(RefusingHandler)) as server, serving(Triton()) as metrics:
        at = [f"http://127.0.0.1:{other.server_address[1]}" for other in (server, metrics)]
        running = begin("run", file, "--target", at[0], "--metrics", at[1], "--out", "-")
        kept, said = running.communicate(timeout=LONGEST_SECONDS)
    assert running.returncode == 1 and 'step "last"' in said and reason in said, said
    run = json.loads(kept)
    assert [step["name"] for step in run["steps"]] == ["step 0", "full"] and reason in run["failure"]
    assert run["steps"][1]["capacity_per_second"] == 0


def test_what_our_server_counted_is_kept(address, tmp_path):
    run = json.loads(play("run", scenario(tmp_path, 1), "--target", f"http://{address}", "--out", "-").stdout)
    (step,) = run["steps"]
    counted = step["servers"][0]["counted"]
    requests = [(series, count) for series, count in counted.items() if series.startswith("stoker_requests_total")]
    answered = sum(count for series, count in requests if 'code="200"' in series)
    # An answer may be read before it is counted.
    assert abs(answered - step["all"]["outcomes"]["200"]) <= 2
    for name in ("stoker_queue_duration_seconds_sum", "stoker_compute_duration_seconds_sum"):
        assert sum(value for series, value in counted.items() if series.startswith(name)) > 0


def test_every_datatype_is_made_up(tmp_path):
    (case, *_) = json.loads((MODELS / "identity/reference.json").read_text())["cases"]
    datatypes = [tensor["datatype"] for tensor in case["inputs"]]
    inputs = ", ".join(
        f'{{ name = "in_{datatype.lower()}", datatype = "{datatype}", shape = [2, 2]'
        + (', text = ["good", "not so ü"] }' if datatype == "BYTES" else " }")
        for datatype in datatypes
    )
    text = "description = ''\nslo_milliseconds = 50\n"
    protocols = ["v1", "v2-binary", "grpc"]
    for protocol in protocols:
        text += f"[[traffic]]\nname = '{protocol}'\nprotocol = '{protocol}'\nmodel = 'identity'\ninputs = [{inputs}]\n"
    text += "[[steps]]\nname = 'all'\nseconds = 1\nload.closed = { connections = 3 }\n"
    file = tmp_path / "all.toml"
    file.write_text(text)
    with stoker("--model_name=identity", f"--model_dir={MODELS / 'identity'}") as server:
        url = f"http://{server.event('listening')['http']}"
        run = json.loads(play("run", file, "--target", url, "--out", "-").stdout)
    assert outcomes(run) == {protocol: ["200"] for protocol in protocols} and len(datatypes) >= 13
