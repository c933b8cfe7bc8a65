"""A forward proxy for the tests: it knows where the names lead that nobody else can resolve."""

import base64
import socket
import socketserver
import threading
from contextlib import contextmanager, suppress

from webserver import serving


class Proxy(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, names, user):
        super().__init__(("127.0.0.1", 0), Handler)
        self.names, self.asked = names, []
        self.authorization = user and f"basic {base64.b64encode(user.encode()).decode()}".lower()
        self.address = f"127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        pass  # clients that have heard enough hang up


class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        head = read_head(self.request)
        method, target, _ = head[0].split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        self.server.asked.append((method, target))
        tunnel = method == "CONNECT"
        name, _, path = target.removeprefix("http://").partition("/")
        if self.server.authorization not in (None, headers.get("proxy-authorization", "").lower()):
            return self.answer(407)
        if name not in self.server.names:
            return self.answer(502)
        with socket.create_connection(("127.0.0.1", self.server.names[name])) as upstream:
            if tunnel:
                self.answer(200)
            else:
                # One request for each connection: whether it is kept is the proxy's to say.
                kept = [line for line in head[1:] if not line.lower().startswith(("proxy-", "connection:"))]
                lines = [f"{method} /{path} HTTP/1.1", *kept, "Connection: close"]
                upstream.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
            back = threading.Thread(target=pump, args=(upstream, self.request))
            back.start()
            pump(self.request, upstream)
            back.join()

    def answer(self, status):
        length = "" if status == 200 else "Content-Length: 0\r\n"
        self.request.sendall(f"HTTP/1.1 {status} x\r\n{length}\r\n".encode())


def read_head(connection):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            raise ConnectionError
        head += byte
    return head.decode().strip().split("\r\n")


def pump(source, sink):
    with suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@contextmanager
def proxy(names, user=None):
    """A proxy that leads from these names, with their ports, to ports of this machine, for the length of a `with`."""
    with serving(Proxy(names, user)) as server:
        yield server
