"""A synthetic S3 server: a train bucket of as many keys as asked for, invented at its start, and what is written to it.

It is no S3 server. It knows what a snapshot asks for: ListObjectsV2, HEAD, GET, PUT and DELETE of small objects,
CopyObject, and the conditions of these; it checks no signature. Everything is held in memory. At its start the
DVC remote holds the content of the train bucket already, as after an earlier snapshot.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

CLASSES = 100
MAX_KEYS = 1000
MODIFIED = "2026-11-01T00:00:00.000Z"
MODIFIED_HEADER = "Sun, 01 Nov 2026 00:00:00 GMT"
TRAIN, AIRLOCK, DVC = "train", "airlock", "dvc"
LAST = "\U0010ffff"
"""After every character that a key has."""


def key_of(number: int) -> str:
    """The key of one of the invented objects."""
    return f"class-{number % CLASSES:03d}/picture-{number:08d}.jpg"


def body_of(number: int, version: int) -> bytes:
    """Its bytes: a few, since nothing but the listing is looked at."""
    return b"picture %d, version %d" % (number, version)


def md5_of(body: bytes) -> str:
    """What S3 gives as the ETag."""
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def remote_key(md5: str) -> str:
    """Where DVC keeps a content in the remote `data`."""
    return f"data/files/md5/{md5[:2]}/{md5[2:]}"


@dataclass
class Bucket:
    """Objects by key, and their keys in order."""

    bodies: dict[str, bytes] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)

    def fill(self, bodies: Iterable[tuple[str, bytes]]) -> None:
        """Put many at once."""
        self.bodies.update(bodies)
        self.etags = {key: md5_of(body) for key, body in self.bodies.items()}
        self.keys = sorted(self.bodies)

    def put(self, key: str, body: bytes) -> None:
        """Write an object."""
        if key not in self.bodies:
            insort(self.keys, key)
        self.bodies[key] = body
        self.etags[key] = md5_of(body)

    def delete(self, key: str) -> None:
        """Remove an object that may be there."""
        if self.bodies.pop(key, None) is not None:
            del self.etags[key], self.keys[bisect_left(self.keys, key)]


@dataclass(frozen=True)
class Page:
    """A part of a listing."""

    keys: list[str]
    prefixes: list[str]
    next: str | None
    """After which the next page begins: the last key or prefix of this one."""


def page(keys: list[str], *, prefix: str, delimiter: str, after: str, from_prefix: str, limit: int) -> Page:
    """The next `limit` keys and common prefixes that begin with `prefix`, in order.

    They come after the key `after`, and after everything that the common prefix `from_prefix` stands for.
    """
    at = max(bisect_left(keys, prefix), bisect_right(keys, after) if after else 0)
    if from_prefix:
        at = max(at, bisect_right(keys, from_prefix + LAST))
    end = bisect_right(keys, prefix + LAST)
    if not delimiter:
        plain = keys[at : min(end, at + limit)]
        return Page(plain, [], plain[-1] if plain and at + limit < end else None)
    found: list[str] = []
    prefixes: list[str] = []
    last = ""
    while at < end and len(found) + len(prefixes) < limit:
        key = keys[at]
        cut = key.find(delimiter, len(prefix))
        if cut < 0:
            found.append(key)
            last, at = key, at + 1
        else:
            last = key[: cut + len(delimiter)]
            prefixes.append(last)
            at = bisect_right(keys, last + LAST, lo=at)
    return Page(found, prefixes, last if at < end and limit else None)


def max_keys(query: dict[str, str]) -> int:
    """How much a page may hold."""
    return min(int(query.get("max-keys", MAX_KEYS)), MAX_KEYS)


def next_page(bucket: Bucket, query: dict[str, str]) -> Page:
    """What a ListObjectsV2 with this query gives."""
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    after, from_prefix = query.get("start-after", ""), ""
    if token := query.get("continuation-token", ""):
        rolled_up = bool(delimiter) and token.endswith(delimiter) and token != prefix
        after, from_prefix = token, token if rolled_up else ""
    limit = max_keys(query)
    return page(bucket.keys, prefix=prefix, delimiter=delimiter, after=after, from_prefix=from_prefix, limit=limit)


@dataclass(frozen=True)
class Request:
    """One request, its target taken apart."""

    method: str
    bucket: str
    key: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """One answer; with an ETag where it is about an object."""

    status: HTTPStatus
    body: bytes = b""
    etag: str | None = None


@dataclass
class Server:
    """The buckets and what they answer."""

    buckets: dict[str, Bucket]

    @classmethod
    def of(cls, count: int) -> Server:
        """With so many objects in the train bucket, and their content in the remote."""
        train, dvc = Bucket(), Bucket()
        train.fill((key_of(number), body_of(number, 0)) for number in range(count))
        dvc.fill((remote_key(md5_of(body)), body) for body in train.bodies.values())
        return cls({TRAIN: train, AIRLOCK: Bucket(), DVC: dvc})

    def answer(self, request: Request) -> Answer:
        """Do what is asked."""
        bucket = self.buckets.get(request.bucket)
        if bucket is None:
            return failure(HTTPStatus.NOT_FOUND, "NoSuchBucket")
        if not request.key:
            return listing(bucket, request) if request.method == "GET" else failure(HTTPStatus.NOT_IMPLEMENTED, "No")
        etag = bucket.etags.get(request.key)
        if refused := precondition(request, etag):
            return refused
        if request.method in {"GET", "HEAD"}:
            if etag is None:
                return failure(HTTPStatus.NOT_FOUND, "NoSuchKey")
            return Answer(HTTPStatus.OK, bucket.bodies[request.key], etag)
        if request.method == "PUT" and "x-amz-copy-source" in request.headers:
            return self._copy(request, bucket)
        if request.method == "PUT":
            bucket.put(request.key, request.body)
            return Answer(HTTPStatus.OK, b"", bucket.etags[request.key])
        if request.method == "DELETE":
            bucket.delete(request.key)
            return Answer(HTTPStatus.NO_CONTENT)
        return failure(HTTPStatus.NOT_IMPLEMENTED, "NotImplemented")

    def _copy(self, request: Request, bucket: Bucket) -> Answer:
        name, _, key = unquote(request.headers["x-amz-copy-source"]).lstrip("/").partition("/")
        source = self.buckets.get(name, Bucket())
        etag = source.etags.get(key)
        if etag is None:
            return failure(HTTPStatus.NOT_FOUND, "NoSuchKey")
        if not matches(request.headers.get("x-amz-copy-source-if-match"), etag):
            return failure(HTTPStatus.PRECONDITION_FAILED, "PreconditionFailed")
        bucket.put(request.key, source.bodies[key])
        body = f'<CopyObjectResult><ETag>"{etag}"</ETag><LastModified>{MODIFIED}</LastModified></CopyObjectResult>'
        return Answer(HTTPStatus.OK, body.encode())


def matches(condition: str | None, etag: str | None) -> bool:
    """Whether an If-Match holds; without one it does."""
    return condition is None or (etag is not None and condition.strip('"') in {"*", etag})


def precondition(request: Request, etag: str | None) -> Answer | None:
    """The refusal, where a condition of the request does not hold."""
    unless = request.headers.get("if-none-match")
    held = matches(request.headers.get("if-match"), etag) and not (unless and matches(unless, etag))
    return None if held else failure(HTTPStatus.PRECONDITION_FAILED, "PreconditionFailed")


def failure(status: HTTPStatus, code: str) -> Answer:
    """An error as S3 tells it."""
    return Answer(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode())


def listing(bucket: Bucket, request: Request) -> Answer:
    """ListObjectsV2."""
    query = request.query
    if query.get("list-type") != "2":
        return failure(HTTPStatus.NOT_IMPLEMENTED, "NotImplemented")
    url_encoded = query.get("encoding-type") == "url"
    found = next_page(bucket, query)

    def name(text: str) -> str:
        return quote(text, safe="/") if url_encoded else escape(text)

    rows = [
        f"<Contents><Key>{name(key)}</Key><LastModified>{MODIFIED}</LastModified><ETag>&quot;{bucket.etags[key]}&quot;"
        f"</ETag><Size>{len(bucket.bodies[key])}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        for key in found.keys
    ]
    rows += [f"<CommonPrefixes><Prefix>{name(each)}</Prefix></CommonPrefixes>" for each in found.prefixes]
    rest = f"<NextContinuationToken>{escape(found.next)}</NextContinuationToken>" if found.next else ""
    encoding = "<EncodingType>url</EncodingType>" if url_encoded else ""
    text = (
        '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>{request.bucket}</Name><Prefix>{name(query.get('prefix', ''))}</Prefix><KeyCount>{len(rows)}</KeyCount>"
        f"<MaxKeys>{max_keys(query)}</MaxKeys>{encoding}"
        f"<IsTruncated>{'true' if found.next else 'false'}</IsTruncated>{rest}"
        f"{''.join(rows)}</ListBucketResult>"
    )
    return Answer(HTTPStatus.OK, text.encode())


class Connection(asyncio.Protocol):
    """HTTP/1.1 with kept connections and bodies of a known length: what S3 clients speak."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.buffer = bytearray()
        self.promised = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every request that is there as a whole."""
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            first, *lines = self.buffer[:end].decode().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            whole = end + 4 + int(headers.get("content-length", 0))
            if len(self.buffer) < whole:
                if headers.get("expect") and not self.promised:
                    self.promised = True
                    self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                return
            body = bytes(self.buffer[end + 4 : whole])
            del self.buffer[:whole]
            self.promised = False
            method, target, _ = first.split(" ")
            self._send(method, self.server.answer(_request(method, target, headers, body)))

    def _send(self, method: str, answer: Answer) -> None:
        etag = f'ETag: "{answer.etag}"\r\n' if answer.etag else ""
        head = (
            f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\nContent-Length: {len(answer.body)}\r\n"
            f"Last-Modified: {MODIFIED_HEADER}\r\nContent-Type: application/xml\r\n{etag}\r\n"
        )
        self.transport.write(head.encode() + (b"" if method == "HEAD" else answer.body))


def _request(method: str, target: str, headers: dict[str, str], body: bytes) -> Request:
    parts = urlsplit(target)
    bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
    query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
    return Request(method, bucket, key, query, headers, body)


async def serve(count: int) -> None:
    """Prints the port, then serves until it is killed."""
    server = Server.of(count)
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: Connection(server), "127.0.0.1", 0)
    print(listener.sockets[0].getsockname()[1], flush=True)
    await listener.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
