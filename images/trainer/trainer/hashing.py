"""The md5 of every object: its ETag where that is one, else hashed once and remembered in the bucket."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import obstore
from obstore.exceptions import PreconditionError

from trainer import parallel, s3
from trainer.directory import MD5, Entry
from trainer.listing import Row
from trainer.s3 import S3Access

THREADS = 8
"""Objects without an md5 are mostly large: a few at once fill the line."""
CHUNK_BYTES = 4 << 20
SAVE_SECONDS = 60

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
                content = obstore.get(s3.store(self.access, self.bucket), self.key).bytes().to_bytes()
            except FileNotFoundError:
                return {}
        try:
            return {Row(key, etag, size): md5 for key, etag, size, md5 in json.loads(content)}
        except ValueError:
            log.warning("remembered hashes are malformed and not used: %s/%s", self.bucket, self.key)
            return {}

    def save(self, known: dict[Row, str]) -> None:
        """Remember these, and nothing else."""
        content = json.dumps([[*row, md5] for row, md5 in sorted(known.items())]).encode()
        with s3.translated(f"writing {self.bucket}/{self.key}"):
            obstore.put(s3.store(self.access, self.bucket), self.key, content)


def entries(access: S3Access, bucket: str, rows: list[Row], memory: Memory) -> list[Entry]:
    """Each object with its md5. Raises `Changed` where one was overwritten or deleted since it was listed."""
    strange = [row for row in rows if not MD5.fullmatch(row.etag)]
    if not strange:
        return [Entry(row.etag, row.key) for row in rows]
    before = memory.load()
    known = {row: before[row] for row in strange if row in before}
    log.info("hashing bucket=%s objects=%d remembered=%d", bucket, len(strange), len(known))
    try:
        _hash(access, bucket, (row for row in strange if row not in before), known, memory)
    finally:
        if known != before:
            memory.save(known)
    return [Entry(known.get(row, row.etag), row.key) for row in rows]


def _hash(access: S3Access, bucket: str, rows: Iterable[Row], known: dict[Row, str], memory: Memory) -> None:
    store = s3.store(access, bucket)
    saved = time.monotonic()
    with s3.translated(f"reading objects of {bucket}"):
        for row, md5 in parallel.unordered(lambda row: (row, _md5(store, row)), rows, THREADS):
            known[row] = md5
            if time.monotonic() - saved > SAVE_SECONDS:
                memory.save(known)
                saved = time.monotonic()


def _md5(store: Any, row: Row) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    try:
        for chunk in obstore.get(store, row.key, options={"if_match": f'"{row.etag}"'}).stream(CHUNK_BYTES):
            digest.update(chunk)
    except (PreconditionError, FileNotFoundError) as cause:
        raise Changed(row.key) from cause
    return digest.hexdigest()
