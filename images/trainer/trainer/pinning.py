"""Pins content in the DVC remote: copied inside the server, only what the remote lacks."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, NamedTuple

import obstore
from botocore.exceptions import ClientError

from trainer import parallel, s3
from trainer.catalogue import DATA_REMOTE
from trainer.directory import content_path
from trainer.hashing import Changed
from trainer.listing import Row
from trainer.s3 import S3Access

PROGRESS_EVERY = 10_000

log = logging.getLogger(__name__)


class Content(NamedTuple):
    """A content by its md5, and one object that has it."""

    md5: str
    source: Row


def lacking(access: S3Access, dvc_bucket: str, md5s: set[str]) -> set[str]:
    """Those of the md5s that the remote does not hold."""
    remote = s3.store(access, dvc_bucket, DATA_REMOTE)

    def held(folder: str) -> set[str]:
        pages = obstore.list(remote, prefix=f"files/md5/{folder}", chunk_size=1000)
        names = (each["path"].rpartition("/")[2] for page in pages for each in page)
        return {md5 for name in names if (md5 := folder + name) in md5s}

    with s3.translated(f"listing the DVC remote {dvc_bucket}/{DATA_REMOTE}"):
        missing = set(md5s)
        for found in parallel.unordered(held, sorted({md5[:2] for md5 in md5s}), s3.THREADS):
            missing -= found
    return missing


def copy(access: S3Access, bucket: str, dvc_bucket: str, contents: Iterable[Content]) -> int:
    """Copy contents into the remote, many at once; how many. Raises `Changed` where a source is another by now."""
    client = s3.client(access)
    copied = 0
    with s3.translated(f"copying from {bucket} into {dvc_bucket}/{DATA_REMOTE}"):
        for _ in parallel.unordered(lambda each: _copy(client, bucket, dvc_bucket, each), contents, s3.THREADS):
            copied += 1
            if copied % PROGRESS_EVERY == 0:
                log.info("copying bucket=%s objects=%d", bucket, copied)
    return copied


def _copy(client: Any, bucket: str, dvc_bucket: str, content: Content) -> None:
    try:
        client.copy_object(
            Bucket=dvc_bucket,
            Key=f"{DATA_REMOTE}/{content_path(content.md5)}",
            CopySource={"Bucket": bucket, "Key": content.source.key},
            CopySourceIfMatch=f'"{content.source.etag}"',
        )
    except ClientError as failure:
        if s3.error_code(failure) in {"PreconditionFailed", "NoSuchKey", "NoSuchVersion", "412", "404"}:
            raise Changed(content.source.key) from failure
        raise
