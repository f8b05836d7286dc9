"""What the server itself can give: requests signed beforehand, over kept connections, their answers thrown away.

Each process holds one connection and does nothing else between two requests, so that the server is what limits.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from urllib.parse import urlsplit

from trainer.catalogue import DATA_REMOTE, Catalogue
from trainer.directory import content_path
from trainer.signed import quoted, signed

from tests.bench.data.arena import Arena, Dataset, key_of
from tests.bench.data.ours import PROJECT
from tests.bench.data.process import cpu_seconds
from tests.bench.data.report import Limit

CONNECTIONS = 16
CHUNK_BYTES = 1 << 20


def gets(data: Dataset) -> Limit:
    """GET every file of a dataset once. Of two rounds the second counts: the page cache is warm, as for the clients."""
    requests = _requests(data.arena, "GET", [f"/{data.buckets.train}/{key_of(number)}" for number in range(data.count)])
    _sent(data.arena, requests, "GET")
    return _sent(data.arena, requests, "GET")


def copies(data: Dataset) -> Limit:
    """Copy every file of a dataset once, to where a snapshot pins its content in an empty remote."""
    arena, buckets, remote = data.arena, data.buckets, data.arena.bucket("limit")
    entries = Catalogue(arena.access, PROJECT, buckets.airlock, buckets.dvc).entries(data.first["md5"])
    paths = [f"/{remote}/{DATA_REMOTE}/{content_path(each.md5)}" for each in entries]
    sources = [{"x-amz-copy-source": quoted(f"{buckets.train}/{each.relpath}")} for each in entries]
    found = _sent(arena, _requests(arena, "PUT", paths, sources), "CopyObject")
    arena.drop(remote)
    return found


def _requests(
    arena: Arena, method: str, paths: Sequence[str], headers: Iterable[dict[str, str]] = repeat({})
) -> list[bytes]:
    host, now = urlsplit(arena.access.endpoint_url).netloc, time.gmtime()
    found = []
    for path, own in zip(paths, headers, strict=False):
        every = {**signed(arena.access, host, method, path, own, now), "content-length": "0"}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in every.items()), "", ""]
        found.append("\r\n".join(lines).encode())
    return found


def _sent(arena: Arena, requests: Sequence[bytes], operation: str) -> Limit:
    parts = [requests[start::CONNECTIONS] for start in range(CONNECTIONS)]
    address = urlsplit(arena.access.endpoint_url)
    assert address.hostname
    assert address.port
    with ProcessPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(_pid, range(CONNECTIONS)))  # all of them are there before the clock starts
        used = cpu_seconds(arena.pids)
        runs = list(pool.map(_send_all, [(address.hostname, address.port)] * CONNECTIONS, parts))
        server_cpu = cpu_seconds(arena.pids) - used
    return Limit(
        operation=operation,
        objects=len(requests),
        bytes=sum(size for _, _, size, _ in runs),
        seconds=max(end for _, end, _, _ in runs) - min(start for start, _, _, _ in runs),
        client_cpu_seconds=sum(cpu for _, _, _, cpu in runs),
        server_cpu_seconds=server_cpu,
        cores=os.cpu_count() or 1,
    )


def _pid(_: int) -> int:
    return os.getpid()


def _send_all(address: tuple[str, int], requests: list[bytes]) -> tuple[float, float, int, float]:
    """Start, end, bytes of bodies, CPU seconds."""
    room = bytearray(CHUNK_BYTES)
    total = 0
    start, used = time.monotonic(), time.process_time()
    with socket.create_connection(address) as connection:
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
        got_bytes = connection.recv_into(room, min(left, CHUNK_BYTES))
        assert got_bytes, "the server hung up"
        left -= got_bytes
    return length
