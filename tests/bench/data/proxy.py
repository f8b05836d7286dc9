"""A proxy of plain HTTP that changes nothing and counts what passes, by method and bucket.

Clients sign the address that they speak to, and the server checks the one that it is told: both are the proxy's.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

CHUNK_BYTES = 256 << 10
HEAD_LIMIT_BYTES = 1 << 20


@dataclass
class Traffic:
    """What passed so far."""

    bytes: int = 0
    """In both directions, heads included."""
    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By method and bucket."""
    object_bytes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Bodies of GETs of an object that were answered with it, and of PUTs, by method and bucket."""


@contextmanager
def counting(upstream_url: str) -> Iterator[tuple[str, Traffic]]:
    """A proxy before the server, in a thread of its own: its address, and what it counts."""
    upstream = urlsplit(upstream_url)
    assert upstream.hostname
    assert upstream.port
    traffic = Traffic()
    proxy = _Proxy(upstream.hostname, upstream.port, traffic)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=HEAD_LIMIT_BYTES), loop
        ).result()
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}", traffic
    finally:
        asyncio.run_coroutine_threadsafe(_hang_up(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@dataclass(frozen=True)
class _Head:
    first: list[str]
    headers: dict[str, str]
    raw: bytes


@dataclass(frozen=True)
class _Request:
    method: str
    bucket: str
    is_object: bool


@dataclass(frozen=True)
class _Proxy:
    host: str
    port: int
    traffic: Traffic

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        waiting: deque[_Request] = deque()
        async with _connected(self.host, self.port) as (from_server, to_server):
            up = asyncio.ensure_future(self._requests(reader, to_server, waiting))
            down = asyncio.ensure_future(self._responses(from_server, writer, waiting))
            # Either side may hang up; the other then has nobody left to speak to.
            _, pending = await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            for each in pending:
                each.cancel()
        writer.close()

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, waiting: deque[_Request]
    ) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await _head(reader)
                method, target = head.first[0], head.first[1]
                bucket, _, key = target.partition("?")[0].lstrip("/").partition("/")
                request = _Request(method, bucket, bool(key))
                waiting.append(request)
                self.traffic.requests[method, bucket] += 1
                self._passed(writer, head.raw)
                length = await self._body(reader, writer, head, has_body=True)
                if method == "PUT":
                    self.traffic.object_bytes[method, bucket] += length

    async def _responses(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, waiting: deque[_Request]
    ) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await _head(reader)
                status = int(head.first[1])
                self._passed(writer, head.raw)
                if status < 200:  # the answer itself is still to come
                    continue
                request = waiting.popleft()
                has_body = request.method != "HEAD" and status not in {204, 304}
                length = await self._body(reader, writer, head, has_body=has_body)
                if request.method == "GET" and request.is_object and status < 300:
                    self.traffic.object_bytes["GET", request.bucket] += length

    async def _body(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: _Head, *, has_body: bool
    ) -> int:
        """Pass a body on; its bytes."""
        length = 0
        if not has_body:
            pass
        elif head.headers.get("transfer-encoding", "").lower() == "chunked":
            while True:
                line = await reader.readuntil(b"\r\n")
                size = int(line.partition(b";")[0], 16)
                self._passed(writer, line + await reader.readexactly(size + 2))
                length += size
                if not size:
                    break
        else:
            length = left = int(head.headers.get("content-length", 0))
            while left:
                chunk = await reader.read(min(left, CHUNK_BYTES))
                if not chunk:
                    raise asyncio.IncompleteReadError(b"", left)
                left -= len(chunk)
                self._passed(writer, chunk)
                await writer.drain()
        await writer.drain()
        return length

    def _passed(self, writer: asyncio.StreamWriter, content: bytes) -> None:
        writer.write(content)
        self.traffic.bytes += len(content)


@asynccontextmanager
async def _connected(host: str, port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(host, port, limit=HEAD_LIMIT_BYTES)
    try:
        yield reader, writer
    finally:
        writer.close()


async def _hang_up() -> None:
    """Clients keep connections; end those that are left."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for each in others:
        each.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _head(reader: asyncio.StreamReader) -> _Head:
    raw = await reader.readuntil(b"\r\n\r\n")
    first, *lines = raw.decode("latin-1").split("\r\n")[:-2]
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return _Head(first.split(" "), headers, raw)
