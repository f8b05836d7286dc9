"""What a bucket holds at one moment, and the digest by which two moments are compared."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

import obstore
from obstore.store import S3Store

_PAGE = 1000
# A page that takes longer is an outage: the caller's waiting and trying again is better than ours.
_REQUEST_SECONDS = 15
# Above this many objects, sorting and hashing would hold up an event loop for more than some milliseconds.
_DIGEST_IN_THREAD = 5_000


@dataclass(frozen=True)
class Listing:
    """A bucket's state: the digest of docs/contracts.md and the number of objects that count."""

    digest: str
    count: int


def listing_of(objects: Iterable[tuple[str, str, int]]) -> Listing:
    """The listing of (key, ETag, size) rows in any order; folder markers and empty objects do not count."""
    lines = [line for row in objects if (line := _line(*row))]
    return _digested(lines)


async def list_bucket(store: S3Store) -> Listing:
    """List a whole bucket. Raises obstore's errors, and TimeoutError where a page does not come."""
    lines: list[bytes] = []
    pages = obstore.list(store, chunk_size=_PAGE).__aiter__()
    while True:
        try:
            page = await asyncio.wait_for(pages.__anext__(), _REQUEST_SECONDS)
        except StopAsyncIteration:
            break
        lines += [line for o in page if (line := _line(o["path"], o["e_tag"] or "", o["size"]))]
    if len(lines) > _DIGEST_IN_THREAD:
        return await asyncio.to_thread(_digested, lines)
    return _digested(lines)


def open_bucket(bucket: str, *, endpoint_url: str | None, region: str, key_id: str, secret: str) -> S3Store:
    """A bucket for listings: one try per request, so that the caller decides how long to wait for S3."""
    return S3Store(
        bucket,
        endpoint=endpoint_url,
        region=region,
        access_key_id=key_id,
        secret_access_key=secret,
        client_options={
            "allow_http": (endpoint_url or "").startswith("http://"),
            "connect_timeout": timedelta(seconds=3),
            "timeout": timedelta(seconds=_REQUEST_SECONDS),
        },
        retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=_REQUEST_SECONDS)},
    )


def _line(key: str, etag: str, size: int) -> bytes | None:
    """One object's part of the digest.

    Empty objects do not count: obstore takes the slash off a folder marker's key, so that
    `cats/` arrives as an empty object `cats`, and no picture is empty.
    """
    if size == 0 or key.endswith("/"):
        return None
    return f"{key}\0{etag.strip(chr(34))}\0{size}\n".encode()


def _digested(lines: list[bytes]) -> Listing:
    # Sorted here, since SeaweedFS lists folder by folder. A key cannot hold \0, which sorts before
    # every other byte: so sorting lines is sorting keys.
    lines.sort()
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line)
    return Listing(digest.hexdigest(), len(lines))
