"""The host's cache of dataset content, in DVC's own layout; shared by every run on the host."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import obstore

from trainer import parallel, s3
from trainer.catalogue import DATA_REMOTE
from trainer.directory import content_path
from trainer.errors import DataError, UnavailableError
from trainer.s3 import S3Access

CHUNK_BYTES = 4 << 20
PROGRESS_SECONDS = 5.0
SPARE_BYTES = 256 << 20
"""Left free on the disk, for checkpoints and logs."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fetched:
    """What a fetch had to download."""

    objects: int
    bytes: int


@dataclass(frozen=True)
class Cache:
    """A directory with `files/md5/ab/cdef…`; its files are read-only and never change once there."""

    root: Path

    def path(self, md5: str) -> Path:
        """Where a content lies, whether it is there or not."""
        return self.root / content_path(md5)

    def fetch(self, access: S3Access, dvc_bucket: str, sizes: Mapping[str, int]) -> Fetched:
        """Make sure that every content of `sizes` (bytes by md5) is here, each verified by its md5.

        Safe beside other processes that do the same, and to kill. Raises `DataError` for a content that the
        remote lacks or holds damaged, `UnavailableError` for a full disk.
        """
        start = time.monotonic()
        missing = self._missing(sizes)
        total = sum(missing.values())
        seconds = time.monotonic() - start
        log.info("cache objects=%d missing=%d missing_bytes=%d seconds=%.1f", len(sizes), len(missing), total, seconds)
        if missing:
            with self._as_writer() as scratch:
                self._check_disk(total)
                self._download(_Remote(s3.store(access, dvc_bucket, DATA_REMOTE), dvc_bucket), missing, scratch)
        return Fetched(len(missing), total)

    def _missing(self, sizes: Mapping[str, int]) -> dict[str, int]:
        # Read in full: a file outlives many runs, the disk under it may rot, and the next step reads it anyway.
        found = parallel.unordered(lambda each: (each, self._holds(*each)), sizes.items(), len(os.sched_getaffinity(0)))
        return dict(each for each, held in found if not held)

    def _holds(self, md5: str, size: int) -> bool:
        path = self.path(md5)
        try:
            if os.stat(path).st_size == size and _md5_of(path) == md5:
                return True
            log.warning("cache.damaged path=%s: its bytes do not have that md5. It is fetched again.", path)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as cause:
            log.warning("cache.unreadable path=%s cause=%s. It is fetched again.", path, cause.strerror)
        return False

    def _check_disk(self, wanted_bytes: int) -> None:
        free = shutil.disk_usage(self.root).free
        if free < wanted_bytes + SPARE_BYTES:
            raise UnavailableError(
                f"the disk of the cache {self.root} has {free >> 20} MiB free, the dataset needs "
                f"{(wanted_bytes + SPARE_BYTES) >> 20} MiB. Make room and run again."
            )

    def _download(self, remote: _Remote, missing: Mapping[str, int], scratch: Path) -> None:
        def one(md5: str) -> str:
            target = self.path(md5)
            part = scratch / md5
            remote.download(md5, part)
            part.chmod(0o444)
            target.parent.mkdir(parents=True, exist_ok=True)
            part.replace(target)
            return md5

        start = reported = time.monotonic()
        done_bytes = 0
        # So that no long one is left for the end.
        largest_first = sorted(missing, key=lambda md5: -missing[md5])
        for done, md5 in enumerate(parallel.unordered(one, largest_first, s3.THREADS), start=1):
            done_bytes += missing[md5]
            if time.monotonic() - reported > PROGRESS_SECONDS or done == len(missing):
                reported = time.monotonic()
                log.info(
                    "fetched objects=%d of=%d bytes=%d seconds=%.1f", done, len(missing), done_bytes, reported - start
                )

    @contextmanager
    def _as_writer(self) -> Iterator[Path]:
        """A scratch directory on the cache's disk; those of killed processes are removed."""
        try:
            with scratch_directory(self.root / "tmp") as scratch:
                yield scratch
        except OSError as cause:
            raise UnavailableError(
                f"the cache {self.root} cannot be written: {cause.strerror or cause}. Check its disk and its owner."
            ) from cause


@dataclass(frozen=True)
class _Remote:
    store: Any
    bucket: str

    def download(self, md5: str, to: Path) -> None:
        """Write the content to a file. What arrives damaged is asked for once more before it counts as damaged."""
        for _ in range(2):
            if self._download_once(md5, to) == md5:
                return
        raise DataError(
            f"{self._name(md5)} is damaged: its bytes do not have that md5. "
            "Restore the object, or delete it and take a new snapshot."
        )

    def _download_once(self, md5: str, to: Path) -> str:
        digest = hashlib.md5(usedforsecurity=False)
        with s3.translated(f"reading {self._name(md5)}"), to.open("wb") as file:
            try:
                for chunk in obstore.get(self.store, content_path(md5)).stream(CHUNK_BYTES):
                    digest.update(chunk)
                    file.write(chunk)
            except FileNotFoundError as missing:
                if "NoSuchBucket" in str(missing):
                    raise
                raise DataError(f"{self._name(md5)} is missing. Restore it, or take a new snapshot.") from missing
        return digest.hexdigest()

    def _name(self, md5: str) -> str:
        return f"{self.bucket}/{DATA_REMOTE}/{content_path(md5)}"


def _md5_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


@contextmanager
def scratch_directory(parent: Path) -> Iterator[Path]:
    """A fresh directory below `parent`, removed at the end; so are those that killed processes left there."""
    parent.mkdir(parents=True, exist_ok=True)
    _sweep(parent)
    while True:
        own = parent / uuid.uuid4().hex
        own.mkdir()
        handle = os.open(own, os.O_RDONLY)
        # The lock says that its maker lives; the kernel drops it with the process.
        fcntl.flock(handle, fcntl.LOCK_EX)
        if own.exists():  # else another swept it before it was locked
            break
        os.close(handle)
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)
        os.close(handle)


def _sweep(parent: Path) -> None:
    for left in parent.iterdir():
        try:
            handle = os.open(left, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            shutil.rmtree(left, ignore_errors=True)
        finally:
            os.close(handle)
