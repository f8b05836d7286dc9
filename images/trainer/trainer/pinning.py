"""Pins content in the DVC remote: copied inside the server, only what the remote lacks."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Set
from functools import partial
from typing import NamedTuple

import obstore

from trainer import large_copies, parallel, s3
from trainer.catalogue import DATA_REMOTE
from trainer.directory import content_path
from trainer.hashing import Changed
from trainer.listing import Row
from trainer.progress import Progress
from trainer.s3 import S3Access, S3Failure
from trainer.signed import SignedRequests, quoted

THREADS = 16
"""More gain nothing on the servers that were measured, and hinder each other in Python."""
OBJECTS_PER_ASKING = 20
"""What a listing tells of so many objects takes as long as asking for one."""

CHANGED = frozenset({"PreconditionFailed", "NoSuchKey", "NoSuchVersion", "412", "404"})

log = logging.getLogger(__name__)


class Content(NamedTuple):
    """A content by its md5, and one object that has it."""

    md5: str
    source: Row


def lacking(access: S3Access, dvc_bucket: str, md5s: Set[str], held_about: int) -> set[str]:
    """Those of the md5s that the remote does not hold. `held_about` is about how many contents it has.

    A few are asked for one by one; many are compared with a listing.
    """
    few = len(md5s) * OBJECTS_PER_ASKING < held_about
    find = _missing_by_asking if few else _missing_by_listing
    with s3.translated(f"looking for contents in the DVC remote {dvc_bucket}/{DATA_REMOTE}"):
        return find(access, dvc_bucket, md5s)


def copy(access: S3Access, bucket: str, dvc_bucket: str, contents: list[Content]) -> None:
    """Copy contents into the remote, many at once. Raises `Changed` where a source is another by now."""
    requests = SignedRequests(access)
    progress = Progress(f"copying bucket={bucket}", len(contents))
    done = parallel.unordered(partial(_copy, requests, bucket, dvc_bucket), contents, THREADS)
    with s3.translated(f"copying from {bucket} into {dvc_bucket}/{DATA_REMOTE}"):
        for _ in done:
            progress.add(1)


def _missing_by_asking(access: S3Access, dvc_bucket: str, md5s: Iterable[str]) -> set[str]:
    requests = SignedRequests(access)

    def missing(md5: str) -> str | None:
        try:
            requests.send("HEAD", dvc_bucket, f"{DATA_REMOTE}/{content_path(md5)}")
        except S3Failure as failure:
            if failure.code != "404":
                raise
            return md5
        return None

    return {md5 for md5 in parallel.unordered(missing, md5s, THREADS) if md5}


def _missing_by_listing(access: S3Access, dvc_bucket: str, md5s: Set[str]) -> set[str]:
    remote = s3.store(access, dvc_bucket, DATA_REMOTE)

    def held(folder: str) -> set[str]:
        pages = obstore.list(remote, prefix=f"files/md5/{folder}", chunk_size=1000)
        names = (each["path"].rpartition("/")[2] for page in pages for each in page)
        return {md5 for name in names if (md5 := folder + name) in md5s}

    missing = set(md5s)
    for found in parallel.unordered(held, sorted({md5[:2] for md5 in md5s}), THREADS):
        missing -= found
    return missing


def _copy(requests: SignedRequests, bucket: str, dvc_bucket: str, content: Content) -> None:
    source, key = content.source, f"{DATA_REMOTE}/{content_path(content.md5)}"
    try:
        if source.size > large_copies.LARGEST_COPY_BYTES:
            large_copies.copy(requests.access, bucket, source, dvc_bucket, key)
            return
        headers = {
            "x-amz-copy-source": quoted(f"{bucket}/{source.key}"),
            "x-amz-copy-source-if-match": f'"{source.etag}"',
            # Without the picture's tags: a rule that deletes by them is not meant for a snapshot, and S3 wants rights
            # of their own to copy them.
            "x-amz-tagging-directive": "REPLACE",
        }
        requests.send("PUT", dvc_bucket, key, headers)
    except S3Failure as failure:
        if failure.code in CHANGED:
            raise Changed(source.key) from failure
        raise
