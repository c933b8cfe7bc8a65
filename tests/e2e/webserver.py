"""An HTTP server for the tests, in this process: it answers as a function says, and remembers what it was asked."""

import http.client
import http.server
import ssl
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Reply:
    status: int = 200
    headers: dict = field(default_factory=dict)
    body: bytes = b""
    # None: as long as the body is; else what is said instead, and "" says nothing: then it is chunked.
    length: str | None = None
    # After so many bytes of the body, the connection breaks.
    breaks_after: int | None = None


@dataclass
class Asked:
    command: str
    path: str
    headers: http.client.HTTPMessage


def ranged(request, content, headers):
    """As a server answers that knows ranges: all, or the range that was asked for."""
    headers = {"Accept-Ranges": "bytes", **headers}
    wanted = request.headers.get("Range")
    if not wanted or request.headers.get("If-Range", headers.get("ETag")) != headers.get("ETag"):
        return Reply(headers=headers, body=content)
    first, last = (int(number) for number in wanted.removeprefix("bytes=").split("-"))
    place = {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
    return Reply(206, headers | place, content[first : last + 1])


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 64

    def __init__(self, answer, certificates=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer, self.asked = answer, []
        if certificates:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificates / "public.crt", certificates / "private.key")
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.url = f"http{'s' if certificates else ''}://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        pass  # clients that have heard enough hang up

    def gets(self):
        return [request for request in self.asked if request.command == "GET"]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        asked = Asked(self.command, self.path, self.headers)
        self.server.asked.append(asked)
        reply = self.server.answer(asked)
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        chunked = reply.length == ""
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", reply.length or str(len(reply.body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if chunked:
            self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(reply.body), reply.body))
        else:
            self.wfile.write(reply.body[: reply.breaks_after])
        if reply.breaks_after is not None:
            self.close_connection = True

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


@contextmanager
def web(answer, certificates=None):
    """A server for the length of a `with`."""
    with serving(Server(answer, certificates)) as server:
        yield server


@contextmanager
def serving(server):
    """Runs a server of Python's library for the length of a `with`."""
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
