"""The md5 of every object: its ETag where that is one, else hashed once and remembered in the bucket.

32 hex digits are not enough to be one: an object that is encrypted with KMS has such an ETag too.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import obstore
from botocore.exceptions import ClientError
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
                store = s3.store(self.access, self.bucket)
                content = parallel.aside(lambda: obstore.get(store, self.key).bytes().to_bytes())
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
            store = s3.store(self.access, self.bucket)
            parallel.aside(lambda: obstore.put(store, self.key, content))


def entries(access: S3Access, bucket: str, rows: list[Row], before: Mapping[str, str], memory: Memory) -> list[Entry]:
    """Each object with its md5. Raises `Changed` where one was overwritten or deleted since it was listed.

    `before` holds the md5s of the newest snapshot by path: an ETag that is one of them is known to be an md5.
    """
    remembered = memory.load()
    known = {row: remembered[row] for row in rows if row in remembered}
    new = [row for row in rows if row not in known and before.get(row.key) != row.etag]
    sample = next((row for row in new if MD5.fullmatch(row.etag)), None)
    encrypted = sample is not None and not etag_is_md5(_head(access, bucket, sample))
    strange = [row for row in new if encrypted or not MD5.fullmatch(row.etag)]
    if known or strange:
        log.info("hashing bucket=%s objects=%d remembered=%d", bucket, len(known) + len(strange), len(known))
    try:
        _hash(access, bucket, strange, known, memory)
    finally:
        if known != remembered:
            memory.save(known)
    return [Entry(known.get(row, row.etag), row.key) for row in rows]


def etag_is_md5(head: Mapping[str, Any]) -> bool:
    """Whether an ETag of 32 hex digits is the md5 of its object, by what a HEAD says of its encryption."""
    return "SSECustomerAlgorithm" not in head and not head.get("ServerSideEncryption", "").startswith("aws:kms")


def _head(access: S3Access, bucket: str, row: Row) -> Mapping[str, Any]:
    with s3.translated(f"looking at {bucket}/{row.key}"):
        try:
            head: Mapping[str, Any] = s3.client(access).head_object(Bucket=bucket, Key=row.key)
        except ClientError as failure:
            if s3.error_code(failure) in {"404", "NoSuchKey"}:
                raise Changed(row.key) from failure
            raise
        return head


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
