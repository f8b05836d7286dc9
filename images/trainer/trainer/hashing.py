"""The md5 of every object: its ETag where that is one, else hashed once and remembered in the bucket.

32 hex digits are not enough to be one: an object that is encrypted with KMS or a customer's key has such an ETag too.
So some of the new objects are hashed each time; one whose md5 is another means that the others' may be, too.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import obstore
from obstore.exceptions import PreconditionError

from trainer import parallel, s3
from trainer.directory import MD5
from trainer.listing import Row
from trainer.progress import Progress
from trainer.s3 import S3Access

THREADS = 8
"""Objects without an md5 are mostly large: a few at once fill the line."""
CHUNK_BYTES = 4 << 20
SAVE_SECONDS = 60

UNKNOWN = "0" * 32
"""Stands in the place of an md5 that no ETag says."""

SAMPLED = 8
"""Where half of the objects have false md5s, all but one in 256 samples find one."""
DRAWN = 32
"""Of so many the smallest are sampled."""
SAMPLE_BYTES = 64 << 20

log = logging.getLogger(__name__)


class Changed(Exception):
    """An object is no longer the one that was listed."""


@dataclass(frozen=True)
class Memory:
    """Where md5s are remembered by (key, ETag, size)."""

    access: S3Access
    bucket: str
    key: str

    def load(self) -> dict[Row, str]:
        """What was hashed before. Nothing is lost where it cannot be parsed: it is hashed again."""
        with s3.translated(f"reading {self.bucket}/{self.key}"):
            try:
                store = s3.store(self.access, self.bucket)
                content = parallel.aside(lambda: obstore.get(store, self.key).bytes().to_bytes())
            except FileNotFoundError:
                return {}
        try:
            return {Row(key, etag, size): md5 for key, etag, size, md5 in json.loads(content)}
        except (TypeError, ValueError):
            log.warning("remembered hashes are malformed and not used: %s/%s", self.bucket, self.key)
            return {}

    def save(self, known: dict[Row, str]) -> None:
        """Remember these, and nothing else."""
        content = json.dumps([[*row, md5] for row, md5 in sorted(known.items())]).encode()
        with s3.translated(f"writing {self.bucket}/{self.key}"):
            store = s3.store(self.access, self.bucket)
            parallel.aside(lambda: obstore.put(store, self.key, content))


def said_by_etags(rows: Iterable[Row]) -> list[str]:
    """The md5 of each row as far as its ETag may be one, and `UNKNOWN` elsewhere."""
    return [row.etag if MD5.fullmatch(row.etag) else UNKNOWN for row in rows]


def md5s(bucket: str, rows: list[Row], unchanged: list[bool], remembered: dict[Row, str], memory: Memory) -> list[str]:
    """The md5 of each row, in their order. Raises `Changed` where one was overwritten or deleted since it was listed.

    `remembered` is what `memory` held. `unchanged` says whether the newest snapshot had a row's ETag as the md5 of its
    path: then it is known to be one.
    """
    access = memory.access
    known = {row: remembered[row] for row in rows if row in remembered} if remembered else {}
    new = [row for row, same in zip(rows, unchanged, strict=True) if not same and row not in known]
    strange = [row for row in new if not MD5.fullmatch(row.etag)]
    if _false_etag(access, bucket, [row for row in new if MD5.fullmatch(row.etag)]):
        strange = new
    if known or strange:
        log.info("hashing bucket=%s objects=%d remembered=%d", bucket, len(known) + len(strange), len(known))
    try:
        _hash(access, bucket, strange, known, memory)
    finally:
        if known != remembered:
            memory.save(known)
    return [known.get(row, row.etag) for row in rows] if known else [row.etag for row in rows]


def sample(rows: Sequence[Row]) -> list[Row]:
    """Some of the objects, at random, and rather small ones: they are downloaded."""
    drawn = random.sample(rows, min(DRAWN, len(rows)))
    chosen: list[Row] = []
    total = 0
    for row in sorted(drawn, key=lambda row: row.size)[:SAMPLED]:
        total += row.size
        if chosen and total > SAMPLE_BYTES:
            break
        chosen.append(row)
    return chosen


def _false_etag(access: S3Access, bucket: str, rows: Sequence[Row]) -> bool:
    """Whether one of a sample has another md5 than its ETag says."""
    store = s3.store(access, bucket)
    chosen = sample([row for row in rows if row.size])
    with s3.translated(f"reading objects of {bucket}"):
        false = [row for row, md5 in _hashed(store, chosen) if md5 != row.etag]
    if chosen:
        log.info("sampled bucket=%s objects=%d bytes=%d", bucket, len(chosen), sum(row.size for row in chosen))
    if false:
        log.warning(
            "the ETags of %s are no md5s, though they look like some: %s has another md5. Every new object is hashed.",
            bucket,
            false[0].key,
        )
    return bool(false)


def _hash(access: S3Access, bucket: str, rows: Sequence[Row], known: dict[Row, str], memory: Memory) -> None:
    store = s3.store(access, bucket)
    progress = Progress(f"hashing bucket={bucket}", len(rows))
    saved = time.monotonic()
    with s3.translated(f"reading objects of {bucket}"):
        for row, md5 in _hashed(store, rows):
            known[row] = md5
            progress.add(1)
            if time.monotonic() - saved > SAVE_SECONDS:
                memory.save(known)
                saved = time.monotonic()


def _hashed(store: Any, rows: Iterable[Row]) -> Iterable[tuple[Row, str]]:
    return parallel.unordered(lambda row: (row, _md5(store, row)), rows, THREADS)


def _md5(store: Any, row: Row) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    try:
        for chunk in obstore.get(store, row.key, options={"if_match": f'"{row.etag}"'}).stream(CHUNK_BYTES):
            digest.update(chunk)
    except (PreconditionError, FileNotFoundError) as cause:
        raise Changed(row.key) from cause
    return digest.hexdigest()
