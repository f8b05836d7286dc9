"""What a bucket holds now, and its digest: the one that the watching sensor computes too."""

from __future__ import annotations

import gc
import hashlib
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import obstore
from obstore.exceptions import GenericError, InvalidPathError

from trainer import keys, parallel, s3
from trainer.errors import ConfigError
from trainer.progress import Progress
from trainer.s3 import S3Access

PAGE = 1000
PAGES_IN_ONE_STREAM = 2
"""A bucket that ends within these is small: nothing is gained by listing its folders beside each other."""
FOLDERS_OF_CLASSES = frozenset({"train", "val"})
"""Their folders are listed beside each other too: they hold the classes."""
FOLDERS_AT_MOST = 1000
"""Above so many, a request for each takes longer than one stream does."""
THREADS = 16
ATTEMPTS = 2
"""How often a folder's listing is begun."""

log = logging.getLogger(__name__)


class Row(NamedTuple):
    """One object: its ETag without quotes, its size in bytes."""

    key: str
    etag: str
    size: int


def read(access: S3Access, bucket: str) -> list[Row]:
    """Every object of the bucket in key order.

    Raises `DataError` for keys that no checkout can hold, `ConfigError` for a server that gives no ETags.
    """
    with s3.translated(f"listing the bucket {bucket}"), _no_cycles_sought():
        absolute = parallel.begun(lambda: _absolute(access, bucket))
        try:
            rows = parallel.aside(lambda: _rows(access, bucket))
        except InvalidPathError:
            # obstore stops at the first such key; boto3 can name them all.
            keys.refuse(bucket, keys.impossible(sorted(_keys(access, bucket))))
            raise
        keys.refuse(bucket, keys.impossible(absolute()))
        rows.sort()
    rows = _without_folder_markers(access, bucket, rows)
    _require_etags(bucket, rows)
    keys.refuse(bucket, keys.impossible([row.key for row in rows]))
    return rows


def digest(rows: Iterable[Row]) -> str:
    """sha256 over `key NUL etag NUL size LF` in key order. Empty objects do not count.

    obstore lists a folder marker `cats/` as an empty object `cats`, so that without asking again
    the two cannot be told apart; and an empty file is no picture.
    """
    digest = hashlib.sha256()
    for key, etag, size in sorted(rows):
        if size:
            digest.update(f"{key}\0{etag}\0{size}\n".encode())
    return digest.hexdigest()


def _rows(access: S3Access, bucket: str) -> list[Row]:
    """A small bucket in one stream, a large one folder beside folder."""
    store = s3.store(access, bucket)
    rows: list[Row] = []
    for pages, page in enumerate(obstore.list(store, chunk_size=PAGE), start=1):
        if pages > PAGES_IN_ONE_STREAM:
            break
        rows.extend(_as_rows(page))
    else:
        return rows
    rows, folders = _spread(store)
    log.info("listing bucket=%s folders=%d", bucket, len(folders))
    progress = Progress(f"listing bucket={bucket}")
    for below in parallel.unordered(lambda folder: _below(store, folder, progress), folders, THREADS):
        rows.extend(below)
    return rows


def _spread(store: Any) -> tuple[list[Row], list[str]]:
    """The objects at the top, and the folders whose listings give all others."""
    top = obstore.list_with_delimiter(store)
    rows, folders = list(_as_rows(top["objects"])), list(top["common_prefixes"])
    for split in FOLDERS_OF_CLASSES.intersection(folders):
        below = obstore.list_with_delimiter(store, split)
        rows.extend(_as_rows(below["objects"]))
        folders.remove(split)
        folders.extend(below["common_prefixes"])
    if len(folders) > FOLDERS_AT_MOST or "" in folders:  # a key that begins with "/"
        return [], [""]
    return rows, folders


def _below(store: Any, folder: str, progress: Progress) -> list[Row]:
    """The objects below a folder, the folder "" being the whole bucket."""
    for attempt in range(ATTEMPTS):
        rows: list[Row] = []
        try:
            for page in obstore.list(store, prefix=folder or None, chunk_size=PAGE):
                rows.extend(_as_rows(page))
                progress.add(len(page))
        except GenericError as cause:
            # obstore asks again for a page that is refused or not begun, not for one that breaks off.
            progress.add(-len(rows))
            if attempt == ATTEMPTS - 1:
                raise
            log.warning("listing folder=%r again: %s", folder, str(cause).splitlines()[0])
        else:
            break
    return rows


def _as_rows(objects: Iterable[Any]) -> Iterator[Row]:
    for each in objects:
        yield Row(each["path"], (each["e_tag"] or "").strip('"'), each["size"])


@contextmanager
def _no_cycles_sought() -> Iterator[None]:
    """A listing's rows hold no cycles, and each search for some would look at a million of them again."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


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


def _require_etags(bucket: str, rows: list[Row]) -> None:
    """Without an ETag an object that is overwritten by one of the same size would be taken for the old one."""
    if bare := [row.key for row in rows if not row.etag]:
        raise ConfigError(
            f"the S3 server gives no ETag for {len(bare)} objects of {bucket}, for instance {bare[0]!r}, so that an "
            "overwrite could not be seen. Let it give ETags (JuiceFS: `gateway --keep-etag`) and upload them again."
        )


def _absolute(access: S3Access, bucket: str) -> list[str]:
    """Keys that begin with a slash, a page of them at most: obstore drops it, and then finds no such object."""
    page = s3.client(access).list_objects_v2(Bucket=bucket, Prefix="/")
    # Some servers, where no key can begin with one, ignore it.
    return [each["Key"] for each in page.get("Contents", []) if each["Key"].startswith("/")]


def _keys(access: S3Access, bucket: str) -> Iterator[str]:
    for page in s3.client(access).get_paginator("list_objects_v2").paginate(Bucket=bucket):
        yield from (each["Key"] for each in page.get("Contents", []) if not each["Key"].endswith("/"))
