"""A proxy before an S3 server that answers with errors, stalls, trickles, and drops connections, request by request."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "expect"})
_RESET = struct.pack("ii", 1, 0)  # close() sends a reset


@dataclass(frozen=True)
class Fault:
    """What happens to the next `n` requests of a method whose place holds `where`.

    `what`: a status ("500", "503"); "stall": no answer for `seconds`; "slow": the answer trickles over `seconds`; "reset": the
    connection is reset in the middle of the request's body; "cut": in the middle of the answer's; "lost": the request is carried
    out and its answer never comes.
    """

    what: str
    method: str = ""
    where: str = ""
    n: int = 1
    seconds: float = 1.0

    def meets(self, method: str, path: str) -> bool:
        return self.method in ("", method) and self.where in path


class Proxy:
    """Forwards to `target` (host:port) what its faults do not touch; `hits` counts the requests that they did."""

    def __init__(self, target: str, server: ThreadingHTTPServer) -> None:
        self.target = target
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        self.hits = 0
        self._faults = list[list[Any]]()
        self._lock = threading.Lock()

    def inject(self, *faults: Fault) -> None:
        """These faults from now on, and no earlier ones."""
        with self._lock:
            self._faults = [[fault, fault.n] for fault in faults]
            self.hits = 0

    def take(self, method: str, path: str) -> Fault | None:
        with self._lock:
            for entry in self._faults:
                if entry[1] and entry[0].meets(method, path):
                    entry[1] -= 1
                    self.hits += 1
                    return entry[0]
        return None


@contextmanager
def proxy(target_url: str) -> Iterator[Proxy]:
    """A proxy on loopback before the server at a URL."""

    class Handler(_Handler):
        pass

    server = _Server(("127.0.0.1", 0), Handler)
    Handler.proxy = Proxy(urlsplit(target_url).netloc, server)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield Handler.proxy
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that were killed leave broken connections: nothing to say about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    proxy: Proxy

    def log_message(self, *_args: Any) -> None:
        """Says nothing."""

    def _serve(self) -> None:
        fault = self.proxy.take(self.command, self.path)
        what = fault.what if fault else ""
        if fault and what == "stall":
            time.sleep(fault.seconds)
            return self._drop()
        self._go_on()
        if what == "reset":
            self.rfile.read(int(self.headers.get("Content-Length", 0)) // 2)
            return self._drop()
        body = self._body()
        if what.isdigit():
            return self._answer(int(what), {"Content-Type": "application/xml"}, _ERROR % what.encode())
        status, headers, content = self._forwarded(body)
        if what == "lost":
            return self._drop()
        return self._answer(status, headers, content, fault if what in ("slow", "cut") else None)

    def _go_on(self) -> None:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
            self.wfile.flush()

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = list[bytes]()
        while n_bytes := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(n_bytes))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _forwarded(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.proxy.target, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        connection.request(self.command, self.path, body, {**headers, "Content-Length": str(len(body))})
        answer = connection.getresponse()
        content = answer.read()
        found = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
        if self.command == "HEAD":
            found["Content-Length"] = answer.getheader("Content-Length", "0")
        connection.close()
        return answer.status, found, content

    def _answer(self, status: int, headers: dict[str, str], content: bytes, fault: Fault | None = None) -> None:
        self.send_response_only(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if fault is not None and fault.what == "cut":
            self.wfile.write(content[: len(content) // 2])
            return self._drop()
        for part in _parts(content, 20 if fault else 1):
            self.wfile.write(part)
            self.wfile.flush()
            time.sleep(fault.seconds / 20 if fault else 0)
        return None

    def _drop(self) -> None:
        """Reset the connection."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.close_connection = True
        self.connection.close()

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve  # noqa: N815


def _parts(content: bytes, n: int) -> list[bytes]:
    size = len(content) // n + 1
    return [content[start : start + size] for start in range(0, len(content), size)]


_ERROR = b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>%s</Code><Message>injected</Message></Error>"
