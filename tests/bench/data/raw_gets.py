"""What the server itself can give: GETs signed beforehand, over kept connections, their bodies thrown away.

Each process holds one connection and does nothing else between two requests, so that the server is what limits.
"""

from __future__ import annotations

import os
import socket
import time
from concurrent.futures import ProcessPoolExecutor
from urllib.parse import urlsplit

from tests.bench.data.arena import Arena, key_of
from tests.bench.data.process import cpu_seconds
from tests.bench.data.report import Limit

CONNECTIONS = 16
EXPIRES_SECONDS = 3600
CHUNK_BYTES = 1 << 20


def limit(arena: Arena, bucket: str, count: int) -> Limit:
    """GET every file of a dataset once."""
    links = [
        arena.client.generate_presigned_url(
            "get_object", Params={"Bucket": bucket, "Key": key_of(number)}, ExpiresIn=EXPIRES_SECONDS
        )
        for number in range(count)
    ]
    parts = [links[start::CONNECTIONS] for start in range(CONNECTIONS)]
    with ProcessPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(_pid, range(CONNECTIONS)))  # all of them are there before the clock starts
        used = cpu_seconds(arena.pids)
        runs = list(pool.map(_get_all, parts))
        server_cpu = cpu_seconds(arena.pids) - used
    seconds = max(end for _, end, _, _ in runs) - min(start for start, _, _, _ in runs)
    return Limit(
        objects=count,
        bytes=sum(size for _, _, size, _ in runs),
        seconds=seconds,
        client_cpu_seconds=sum(cpu for _, _, _, cpu in runs),
        server_cpu_seconds=server_cpu,
        cores=os.cpu_count() or 1,
    )


def _pid(_: int) -> int:
    return os.getpid()


def _get_all(links: list[str]) -> tuple[float, float, int, float]:
    """Start, end, bytes of bodies, CPU seconds."""
    if not links:
        return time.monotonic(), time.monotonic(), 0, 0.0
    first = urlsplit(links[0])
    assert first.hostname
    assert first.port
    requests = [
        f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
        for parts in map(urlsplit, links)
    ]
    room = bytearray(CHUNK_BYTES)
    total = 0
    start, used = time.monotonic(), time.process_time()
    with socket.create_connection((first.hostname, first.port)) as connection:
        for request in requests:
            connection.sendall(request)
            total += _read(connection, room)
    return start, time.monotonic(), total, time.process_time() - used


def _read(connection: socket.socket, room: bytearray) -> int:
    """Throw an answer away; the bytes of its body."""
    head = b""
    while (end := head.find(b"\r\n\r\n")) < 0:
        got = connection.recv(CHUNK_BYTES)
        assert got, "the server hung up"
        head += got
    assert head.startswith(b"HTTP/1.1 200"), head[:200]
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    left = length - (len(head) - end - 4)
    while left:
        left -= connection.recv_into(room, min(left, CHUNK_BYTES))
    return length
