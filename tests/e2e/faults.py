"""An HTTP proxy that breaks what it is told to break, between stoker and a real S3 server.

    with faults.proxy(minio.port) as proxy:
        proxy.script("read", faults.reset(after=1000), key="*.onnx", times=1)

Requests go on as they came, with the `Host` that was signed. Each is counted, with the bytes of body that it was given.
"""

import fcntl
import http.client
import re
import socket
import struct
import termios
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

# Longest that an upstream or a client may take; whoever needs more hangs.
PATIENCE = 20
PIECE = 16 << 10


@dataclass
class Seen:
    """A request, and what became of it."""

    step: str  # as stoker's messages call it: list, look up, read
    key: str
    range: tuple[int, int] | None
    at: float
    status: int = 0
    body_bytes: int = 0


@dataclass
class Rule:
    step: str
    key: str
    skip: int
    times: int
    fault: object

    def takes(self, seen):
        """Whether it is this one's turn; asking counts."""
        if seen.step != self.step or not fnmatchcase(seen.key, self.key):
            return False
        self.skip -= 1
        self.times -= self.skip < 0
        return self.skip < 0 and self.times >= 0


class Proxy(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, upstream_port):
        super().__init__(("127.0.0.1", 0), Exchange)
        self.upstream_port = upstream_port
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.closing = threading.Event()
        self.lock = threading.Lock()
        self.rules = []
        self.seen = []

    def script(self, step, fault, key="*", skip=0, times=1 << 30):
        """Lets the fault happen to `times` requests of this step after the first `skip`, for keys like this one; what
        was scripted before this goes first."""
        self.rules.append(Rule(step, key, skip, times, fault))

    def fault_for(self, seen):
        with self.lock:
            self.seen.append(seen)
            taking = next((rule for rule in self.rules if rule.takes(seen)), None)
        return taking.fault if taking else relay()

    def asked(self, step, key="*"):
        return [seen for seen in self.seen if seen.step == step and fnmatchcase(seen.key, key)]

    def handle_error(self, request, client_address):
        """Clients hang up, and are made to."""


@contextmanager
def proxy(upstream_port):
    """A proxy for the length of a `with`."""
    server = Proxy(upstream_port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


class Exchange(BaseHTTPRequestHandler):
    """A client's connection, and on it one request after the other. Faults are functions of it that give the answer."""

    protocol_version = "HTTP/1.1"
    timeout = PATIENCE

    def do_GET(self):
        url = urlsplit(self.path)
        _, _, key = unquote(url.path).lstrip("/").partition("/")
        step = "look up" if self.command == "HEAD" else "list" if "list-type" in url.query else "read"
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
        self.seen = Seen(step, key, asked and tuple(map(int, asked.groups())), time.monotonic())
        self.server.fault_for(self.seen)(self)

    do_HEAD = do_GET

    def log_message(self, *args):
        pass

    def forward(self):
        """What the server answers."""
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.upstream_port, timeout=PATIENCE)
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            upstream.putheader(name, value)
        upstream.endheaders()
        return upstream.getresponse()

    def head(self, status, headers):
        self.seen.status = status
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()

    def answer(self, status, headers, body):
        self.head(status, [*headers.items(), ("Content-Length", len(body))])
        if self.command != "HEAD":
            self.body(body)

    def body(self, piece):
        self.wfile.write(piece)
        self.seen.body_bytes += len(piece)

    def hang(self):
        """Until the client has enough, or the test."""
        self.connection.settimeout(0.05)
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and not self.server.closing.is_set():
            try:
                if not self.connection.recv(1):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        self.close_connection = True


def pieces(answer, most=None):
    """The body as it comes, or its first bytes."""
    left = most if most is not None else 1 << 62
    while left and (piece := answer.read(min(PIECE, left))):
        left -= len(piece)
        yield piece


def relay(most=None, end=None, change=lambda at, piece: piece, pause=None, headers=lambda headers: headers):
    """The server's answer, or the first bytes of its body; each piece changed by its place, then a pause."""

    def fault(exchange):
        answer = exchange.forward()
        exchange.head(answer.status, headers(answer.getheaders()))
        at = 0
        for piece in pieces(answer, most):
            exchange.body(change(at, piece))
            at += len(piece)
            if pause:
                time.sleep(pause(len(piece)))
        answer.close()
        if end:
            end(exchange)

    return fault


def slow(bytes_per_second):
    return relay(pause=lambda count: count / bytes_per_second)


def stall(after):
    return relay(most=after, end=Exchange.hang)


def silence():
    """Not even a head."""
    return Exchange.hang


def truncate(after):
    """An end that looks like any other."""

    def end(exchange):
        exchange.close_connection = True

    return relay(most=after, end=end)


def reset(after):
    def end(exchange):
        # A reset overtakes what is still to be sent.
        waiting = bytearray(4)
        while not fcntl.ioctl(exchange.connection, termios.TIOCOUTQ, waiting) and any(waiting):
            time.sleep(0.001)
        exchange.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        exchange.connection.close()  # with nothing lingering this sends RST
        exchange.close_connection = True

    return relay(most=after, end=end)


def flip(at):
    """One bit of the body."""

    def change(begin, piece):
        if begin <= at < begin + len(piece):
            piece = bytearray(piece)
            piece[at - begin] ^= 0x10
        return bytes(piece)

    return relay(change=change)


def refuse(status, code="", message="", more="", **headers):
    """An error as S3 has them."""
    text = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>' if code else ""
    headers = {name.replace("_", "-"): str(value) for name, value in headers.items()}
    return lambda exchange: exchange.answer(status, {"Content-Type": "application/xml", **headers}, text.encode())


def garbage(exchange):
    exchange.wfile.write(b"SSH-2.0-OpenSSH_9.9\r\n")
    exchange.close_connection = True


def say(body):
    return lambda exchange: exchange.answer(200, {}, body)


def rewrite(old, new):
    """Another word for each of these in a body that may be buffered."""

    def fault(exchange):
        answer = exchange.forward()
        exchange.answer(answer.status, {}, answer.read().replace(old, new))

    return fault


def after(action):
    """Something happens before the request goes on."""

    def fault(exchange):
        action()
        relay()(exchange)

    return fault


def chunked(exchange):
    """A body in chunks of odd sizes, with extensions and a trailer."""
    answer = exchange.forward()
    kept = [(name, value) for name, value in answer.getheaders() if name.lower() != "content-length"]
    exchange.head(answer.status, [*kept, ("Transfer-Encoding", "chunked")])
    for piece in pieces(answer):
        for part in (piece[:1], piece[1:]):
            if part:
                exchange.wfile.write(b"%x;a=b\r\n" % len(part))
                exchange.body(part)
                exchange.wfile.write(b"\r\n")
    exchange.wfile.write(b"0\r\nX-Trailer: x\r\n\r\n")


def unframed(after):
    """No length, and an end too early: only the end of the connection says where the body ends."""

    def without_length(headers):
        kept = [(name, value) for name, value in headers if name.lower() != "content-length"]
        return [*kept, ("Connection", "close")]

    def end(exchange):
        exchange.close_connection = True

    return relay(most=after, end=end, headers=without_length)
