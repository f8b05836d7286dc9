"""A proxy in front of a real S3 server that counts what passes and, where a test says so, does it harm.

The Host header goes through unchanged, so that the server checks the client's own signature.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection, HTTPException, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from urllib.parse import parse_qs, unquote, urlsplit

from tests.integration.s3_servers import S3Server

CHUNK_BYTES = 1 << 16
OF_THE_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "expect"}


@dataclass(frozen=True)
class Call:
    """One request, and how many bytes of body went each way."""

    method: str
    bucket: str
    key: str
    query: dict[str, str]
    sent_bytes: int = 0
    received_bytes: int = 0

    @property
    def lists(self) -> bool:
        """Whether it asks for a page of a listing."""
        return self.method == "GET" and not self.key and "list-type" in self.query

    @property
    def writes(self) -> bool:
        """Whether it changes what the server holds."""
        return self.method in {"PUT", "POST", "DELETE"}


Matches = Callable[[Call], bool]


@dataclass(frozen=True)
class Harm:
    """What is done to a request that matches: at most one of these, or only the callbacks."""

    status: int = 0
    """Answered in the server's place with this status and S3's error code."""
    code: str = ""
    dropped: bool = False
    """The connection is closed, and the server never sees the request."""
    lost: bool = False
    """The connection is closed when the server has done what it was asked."""
    cut: int | None = None
    """The connection is closed after so many bytes of the answer's body."""
    altered: Callable[[bytes], bytes] | None = None
    """Makes another body, of the same length, from the answer's."""
    before: Callable[[], object] | None = None
    """Called before the request goes on to the server."""
    after: Callable[[], object] | None = None
    """Called when the server has answered, and the client does not know yet."""


@dataclass
class Rule:
    """Harm done to the requests that match, from the `first` to the `last` of them."""

    matches: Matches
    harm: Harm
    first: int
    last: int
    met: int = 0


@dataclass
class S3Proxy:
    """A running proxy."""

    server: S3Server
    """The server as a client sees it through the proxy."""
    calls: list[Call] = field(default_factory=list)
    _rules: list[Rule] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)

    def harm(self, matches: Matches, harm: Harm, first: int = 1, last: int | None = None) -> Rule:
        """Do harm to the `first` request that matches from now on, or up to the `last`; `met` says how many came."""
        rule = Rule(matches, harm, first, last or first)
        with self._lock:
            self._rules.append(rule)
        return rule

    def forget_harm(self) -> None:
        """From now on everything passes."""
        with self._lock:
            self._rules.clear()

    def count(self, matches: Matches = lambda _: True) -> tuple[int, int]:
        """How many requests match, and the bytes of body that they moved in both directions."""
        with self._lock:
            found = [call for call in self.calls if matches(call)]
        return len(found), sum(call.sent_bytes + call.received_bytes for call in found)

    def due(self, call: Call) -> Harm:
        """What is to be done to this request."""
        due = Harm()
        with self._lock:
            for rule in self._rules:
                if rule.matches(call):
                    rule.met += 1
                    if rule.first <= rule.met <= rule.last:
                        due = rule.harm
        return due

    def passed(self, call: Call) -> None:
        """Remember a request that has ended."""
        with self._lock:
            self.calls.append(call)


@contextmanager
def s3_proxy(server: S3Server) -> Iterator[S3Proxy]:
    """A proxy in front of `server`, on loopback."""
    upstream = urlsplit(server.endpoint_url).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            self.onward = HTTPConnection(upstream, timeout=60)

        def finish(self) -> None:
            self.onward.close()
            super().finish()

        def pass_on(self) -> None:
            _exchange(self, proxy, self.onward)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = pass_on

        def log_message(self, *_: object) -> None:
            pass

    with _Server(("127.0.0.1", 0), Handler) as listener:
        proxy = S3Proxy(replace(server, endpoint_url=f"http://127.0.0.1:{listener.server_port}"))
        Thread(target=listener.serve_forever, daemon=True).start()
        try:
            yield proxy
        finally:
            listener.shutdown()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """A client that was killed is no news."""


def _exchange(handler: BaseHTTPRequestHandler, proxy: S3Proxy, onward: HTTPConnection) -> None:
    body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
    call = replace(_call(handler), sent_bytes=len(body))
    harm = proxy.due(call)
    if harm.before:
        harm.before()
    if harm.status:
        _answer(handler, harm)
    elif harm.dropped:
        _hang_up(handler)
    else:
        headers = {name: value for name, value in handler.headers.items() if name.lower() not in OF_THE_CONNECTION}
        try:
            onward.request(handler.command, handler.path, body, headers)
            response = onward.getresponse()
        except (OSError, HTTPException):  # the server is down, or was stopped by the test
            onward.close()
            _hang_up(handler)
            return
        if harm.after:
            harm.after()
        if harm.lost:
            response.read()
            _hang_up(handler)
        else:
            call = replace(call, received_bytes=_pass_back(handler, response, harm))
    proxy.passed(call)


def _call(handler: BaseHTTPRequestHandler) -> Call:
    parts = urlsplit(handler.path)
    bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
    query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
    return Call(handler.command, bucket, key, query)


def _answer(handler: BaseHTTPRequestHandler, harm: Harm) -> None:
    body = f"<?xml version='1.0'?><Error><Code>{harm.code}</Code><Message>as the test wants</Message></Error>".encode()
    handler.send_response(harm.status)
    handler.send_header("Content-Type", "application/xml")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


def _pass_back(handler: BaseHTTPRequestHandler, response: HTTPResponse, harm: Harm) -> int:
    """Give the server's answer to the client; the bytes of its body."""
    handler.send_response_only(response.status, response.reason)
    for name, value in response.getheaders():
        if name.lower() not in OF_THE_CONNECTION:
            handler.send_header(name, value)
    chunked = response.length is None and handler.command != "HEAD"
    if chunked:
        handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    left = harm.cut
    moved = 0
    while chunk := response.read(CHUNK_BYTES if left is None else min(left, CHUNK_BYTES)):
        moved += len(chunk)
        chunk = harm.altered(chunk) if harm.altered else chunk
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk) if chunked else chunk)
        left = None if left is None else left - len(chunk)
    if harm.cut is not None:
        response.close()
        _hang_up(handler)
    elif chunked:
        handler.wfile.write(b"0\r\n\r\n")
    return moved


def _hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)
