"""A real HTTP server on this machine whose answers are as good or bad as the path asks for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HTML = b"<html><body>Please log in</body></html>"
BODY = bytes(range(256)) * 1000
HALF = len(BODY) // 2


class Server(ThreadingHTTPServer):
    """It keeps what it was asked, and knows further files by path."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.captive = False  # a network that answers everything with its login page
        self.over = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *words: Any) -> None:
        """A client that hangs up is what is tested."""


class Handler(BaseHTTPRequestHandler):
    """Good and bad answers by the first part of the path."""

    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        if self.server.captive:
            return self.html()
        if self.path.startswith("http://"):  # as a proxy
            return self.answer(b"through the proxy")
        if self.path in self.server.files:
            return self.answer(self.server.files[self.path])
        getattr(self, self.path.strip("/").replace("-", "_") or "root", self.missing)()
        return None

    def answer(self, body: bytes, status: int = 200, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if length != -1:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def missing(self) -> None:
        self.send_error(404)

    def good(self) -> None:
        self.answer(BODY, ETag='"one"')

    def without_length(self) -> None:
        self.answer(BODY, length=-1)

    def nothing(self) -> None:
        self.answer(b"")

    def short(self) -> None:
        """Stops half-way; there is no way to tell versions of the file apart."""
        self.answer(BODY[:HALF], length=len(BODY))

    def weak(self) -> None:
        self.answer(BODY[:HALF], length=len(BODY), ETag='W/"one"')

    def short_once(self) -> None:
        """Stops half-way at first, and sends the rest when asked for it."""
        self.resumable(ETag='"one"')

    def short_once_by_time(self) -> None:
        self.resumable(Last_Modified="Wed, 21 Oct 2015 07:28:00 GMT")

    def resumable(self, **version: str) -> None:
        wanted = self.headers.get("Range")
        if wanted is None:
            self.answer(BODY[:HALF], length=len(BODY), **version)
        elif self.headers["If-Range"] != next(iter(version.values())):
            self.answer(BODY, **version)
        else:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            place = f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"
            self.answer(BODY[start:], 206, Content_Range=place, **version)

    def range_ignored(self) -> None:
        self.answer(BODY if "Range" in self.headers else BODY[:HALF], length=len(BODY), ETag='"one"')

    def range_refused(self) -> None:
        if "Range" in self.headers:
            return self.send_error(416)
        again = sum(path == self.path for path, _ in self.server.asked) > 1
        return self.answer(BODY if again else BODY[:HALF], length=len(BODY), ETag='"one"')

    def changed(self) -> None:
        """Sends the rest of another version, although asked for that of the first."""
        if "Range" in self.headers:
            place = f"bytes {HALF}-{len(BODY) - 1}/{len(BODY)}"
            return self.answer(HTML, 206, Content_Range=place, ETag='"two"')
        again = sum(path == self.path for path, _ in self.server.asked) > 1
        return self.answer(BODY if again else BODY[:HALF], length=len(BODY), ETag='"two"' if again else '"one"')

    def piece(self) -> None:
        self.answer(BODY[:10], 206, Content_Range=f"bytes 0-9/{len(BODY)}")

    def more_than_said(self) -> None:
        self.answer(BODY, length=HALF)

    def less_than_said(self) -> None:
        self.answer(BODY, length=len(BODY) + 1000, ETag='"one"')

    def broken_chunks(self) -> None:
        self.protocol_version = "HTTP/1.1"
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"ff\r\nonly this")

    def stall(self) -> None:
        self.answer(BODY[:HALF], length=len(BODY), ETag='"one"')
        self.server.over.wait(20)

    def drip(self) -> None:
        """A byte at a time, each sooner than any time-out."""
        self.answer(b"", length=len(BODY), ETag='"one"')
        for _ in range(1000):
            self.wfile.write(b"x")
            if self.server.over.wait(0.02):
                return

    def html(self) -> None:
        self.answer(HTML, Content_Type="text/html; charset=utf-8")

    def disguised_html(self) -> None:
        self.answer(b"\n <!DOCTYPE html>" + HTML, Content_Type="application/zip")

    def packed(self) -> None:
        self.answer(BODY, Content_Encoding="gzip")

    def redirect(self) -> None:
        self.answer(b"", 302, Location="/good")

    def circle(self) -> None:
        self.answer(b"", 302, Location="/circle")

    def to_a_file(self) -> None:
        self.answer(b"", 302, Location="file:///etc/hostname")

    def log_message(self, *words: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[Server]:
    """The server at work."""
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield made
    finally:
        made.over.set()
        made.shutdown()
        thread.join()
        made.server_close()
