"""What a bucket holds now, and its digest: the one that the watching sensor computes too."""

from __future__ import annotations

import hashlib
import logging
import unicodedata
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import obstore
from obstore.exceptions import InvalidPathError

from trainer import parallel, s3
from trainer.errors import DataError
from trainer.s3 import S3Access

PAGE = 1000
PROGRESS_EVERY = 100_000
NAMES_SHOWN = 10

log = logging.getLogger(__name__)


class Row(NamedTuple):
    """One object: its ETag without quotes, its size in bytes."""

    key: str
    etag: str
    size: int


def read(access: S3Access, bucket: str) -> list[Row]:
    """Every object of the bucket in key order. Raises `DataError` for keys that no checkout can hold."""
    with s3.translated(f"listing the bucket {bucket}"):
        try:
            rows = parallel.aside(lambda: _rows(access, bucket))
        except InvalidPathError:
            # obstore stops at the first such key; boto3 can name them all.
            refuse(bucket, impossible(_keys(access, bucket)))
            raise
    rows.sort()
    rows = _without_folder_markers(access, bucket, rows)
    refuse(bucket, impossible(row.key for row in rows))
    return rows


def digest(rows: Iterable[Row]) -> str:
    """sha256 over `key NUL etag NUL size LF` in key order. Empty objects do not count.

    obstore lists a folder marker `cats/` as an empty object `cats`, so that without asking again
    the two cannot be told apart; and an empty file is no picture.
    """
    digest = hashlib.sha256()
    for row in sorted(rows):
        if row.size:
            digest.update(f"{row.key}\0{row.etag}\0{row.size}\n".encode())
    return digest.hexdigest()


def impossible(keys: Iterable[str]) -> list[str]:
    """Keys that no checkout can hold, each with the cause in words."""
    problems: list[str] = []
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for key in keys:
        if cause := _unsafe(key):
            problems.append(f"{key!r} ({cause})")
            continue
        folded = _folded(key)
        if folded in files:
            problems.append(f"{key!r} (the same name as {files[folded]!r} where case does not count)")
            continue
        files[folded] = key
        for folder in _folders(key):
            known = folders.setdefault(_folded(folder), folder)
            if known != folder:
                problems.append(f"{key!r} (its folder has the same name as {known!r} where case does not count)")
                break
    problems.extend(f"{files[name]!r} (is a file and a folder)" for name in sorted(files.keys() & folders.keys()))
    return problems


def refuse(bucket: str, problems: list[str]) -> None:
    """Raise `DataError` where there are problems, naming the first of them."""
    if problems:
        more = f" and {len(problems) - NAMES_SHOWN} more" if len(problems) > NAMES_SHOWN else ""
        raise DataError(
            f"{bucket} holds {len(problems)} objects whose names no checkout can hold: "
            f"{', '.join(problems[:NAMES_SHOWN])}{more}. Rename or delete them."
        )


def _rows(access: S3Access, bucket: str) -> list[Row]:
    rows: list[Row] = []
    reported = 0
    for page in obstore.list(s3.store(access, bucket), chunk_size=PAGE):
        rows.extend(Row(o["path"], (o["e_tag"] or "").strip('"'), o["size"]) for o in page)
        if len(rows) >= reported + PROGRESS_EVERY:
            reported = len(rows)
            log.info("listing bucket=%s objects=%d", bucket, reported)
    return rows


def _unsafe(key: str) -> str | None:
    parts = key.split("/")
    if key.startswith("/"):
        return "an absolute path"
    if ".." in parts or "." in parts:
        return "leads out of its folder"
    if "" in parts:
        return "an empty folder name"
    if "\\" in key:
        return "a backslash"
    # U+FFFD stands where the server could not put a character into its XML.
    if "\ufffd" in key or any(unicodedata.category(c) in {"Cc", "Cs"} for c in key if not c.isalnum()):
        return "a control character"
    if any(len(part.encode()) > 255 for part in parts):
        return "a name longer than 255 bytes"
    return None


def _folders(key: str) -> Iterator[str]:
    end = key.find("/")
    while end >= 0:
        yield key[:end]
        end = key.find("/", end + 1)


def _folded(name: str) -> str:
    return name.lower() if name.isascii() else unicodedata.normalize("NFC", name).casefold()


def _without_folder_markers(access: S3Access, bucket: str, rows: list[Row]) -> list[Row]:
    store = s3.store(access, bucket)

    def marker(key: str) -> str | None:
        try:
            obstore.head(store, key)
        except FileNotFoundError:
            return key
        return None

    empty = (row.key for row in rows if row.size == 0)
    with s3.translated(f"looking at the empty objects of {bucket}"):
        markers = set(parallel.unordered(marker, empty, s3.THREADS)) - {None}
    return [row for row in rows if row.key not in markers] if markers else rows


def _keys(access: S3Access, bucket: str) -> Iterator[str]:
    for page in s3.client(access).get_paginator("list_objects_v2").paginate(Bucket=bucket):
        yield from (each["Key"] for each in page.get("Contents", []) if not each["Key"].endswith("/"))
