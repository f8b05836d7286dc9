"""The host's cache of dataset content, in DVC's own layout; shared by every run on the host."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trainer import contents, eviction, holds, parallel
from trainer.contents import Contents, Stamp
from trainer.directory import content_path
from trainer.errors import UnavailableError
from trainer.packs import FEWEST, Packs
from trainer.remote import Kept, Remote
from trainer.s3 import S3Access
from trainer.shelf import Shelf, scratch_directory

PROGRESS_SECONDS = 5.0
SPARE_BYTES = 256 << 20
"""Left free on the disk, for checkpoints and logs."""
TRUSTED_SECONDS = 30 * 24 * 3600.0
"""How long a file that has not changed is taken without reading it: the disk under it may rot."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fetched:
    """What a fetch had to download, and how many files it read to verify them."""

    objects: int
    bytes: int
    verified: int = 0


@dataclass(frozen=True)
class Cache:
    """A directory with `files/md5/ab/cdef…`; its files are read-only and never change once there.

    `limit_bytes`: how much it may hold; None: as much as the disk. `packs_of`: the project whose packs are read and
    written; None: none are.
    """

    root: Path
    limit_bytes: int | None = None
    packs_of: str | None = None

    def path(self, md5: str) -> Path:
        """Where a content lies, whether it is there or not."""
        return self.root / content_path(md5)

    def fetch(self, access: S3Access, dvc_bucket: str, sizes: Mapping[str, int]) -> Fetched:
        """Make sure that every content of `sizes` (bytes by md5) is here, each verified by its md5.

        It stays for the rest of this process's life. Safe beside other processes that do the same, and to kill.
        Raises `DataError` for a content that the remote lacks or holds damaged, `ConfigError` for a limit below the
        dataset, `UnavailableError` for a full disk, and for a cache that other runs fill.
        """
        start = time.monotonic()
        self._hold(sizes)
        with contents.opened(self.root) as known:
            missing, verified = self._look(sizes, known)
            known.use(sizes, time.time())
            total = sum(missing.values())
            log.info(
                "cache objects=%d verified=%d missing=%d missing_bytes=%d seconds=%.1f",
                len(sizes), verified, len(missing), total, time.monotonic() - start,
            )  # fmt: skip
            if missing:
                with self._as_writer() as shelf:
                    if self.limit_bytes is not None:
                        eviction.make_room(self.root, self.limit_bytes, sizes, known)
                    self._check_disk(total)
                    shelf.make_folders(missing)
                    self._download(access, dvc_bucket, missing, shelf, known)
        return Fetched(len(missing), total, verified)

    def _hold(self, sizes: Mapping[str, int]) -> None:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            holds.hold(self.root, sizes)
        except OSError as cause:
            # Nobody evicts from a cache that cannot be written; and whether it has to be, is not known yet.
            log.warning("cache.not_held path=%s cause=%s", self.root, cause.strerror)

    def _look(self, sizes: Mapping[str, int], known: Contents) -> tuple[dict[str, int], int]:
        """Which contents are missing or damaged, and how many files had to be read for that."""
        trusted = known.verified(sizes)
        now = time.time()
        base = f"{self.root}/files/md5"
        missing: dict[str, int] = {}
        unverified: dict[str, int] = {}
        for md5, size in sizes.items():
            path = f"{base}/{md5[:2]}/{md5[2:]}"
            try:
                found = os.stat(path)
            except (FileNotFoundError, NotADirectoryError):
                missing[md5] = size
                continue
            except OSError:
                unverified[md5] = size  # reading it tells why
                continue
            stamp, at = trusted.get(md5, (None, 0.0))
            if stamp != (found.st_size, found.st_mtime_ns, found.st_ino) or not 0 <= now - at < TRUSTED_SECONDS:
                unverified[md5] = size
        good: list[Kept] = []
        cores = len(os.sched_getaffinity(0))
        for md5, stamp in parallel.unordered(lambda md5: (md5, self._verified(md5, sizes[md5])), unverified, cores):
            if stamp:
                good.append((md5, stamp))
            else:
                missing[md5] = sizes[md5]
        known.note(good, now)
        return missing, len(unverified)

    def _verified(self, md5: str, size: int) -> Stamp | None:
        """The stamp of a file whose bytes have that md5."""
        path = self.path(md5)
        try:
            with path.open("rb", buffering=0) as file:
                stat = os.fstat(file.fileno())
                if stat.st_size == size and hashlib.file_digest(file, _md5).hexdigest() == md5:
                    return Stamp(stat.st_size, stat.st_mtime_ns, stat.st_ino)
            log.warning("cache.damaged path=%s: its bytes do not have that md5. It is fetched again.", path)
        except OSError as cause:
            log.warning("cache.unreadable path=%s cause=%s. It is fetched again.", path, cause.strerror)
        return None

    def _check_disk(self, wanted_bytes: int) -> None:
        free = shutil.disk_usage(self.root).free
        if free < wanted_bytes + SPARE_BYTES:
            raise UnavailableError(
                f"the disk of the cache {self.root} has {free >> 20} MiB free, the dataset needs "
                f"{(wanted_bytes + SPARE_BYTES) >> 20} MiB. Make room and run again."
            )

    def _download(
        self, access: S3Access, dvc_bucket: str, missing: Mapping[str, int], shelf: Shelf, known: Contents
    ) -> None:
        left = dict(missing)
        packs = None
        if self.packs_of and len(missing) >= FEWEST:
            packs = Packs.opened(access, dvc_bucket, self.packs_of)
            self._take(packs.fetch(left, shelf), left, known)
        self._take(Remote.of(access, dvc_bucket).fetch(dict(left), shelf), left, known)
        if packs:
            packs.add(missing, shelf)

    def _take(self, arriving: Iterable[list[Kept]], left: dict[str, int], known: Contents) -> None:
        """Note what arrives, now and then, so that who is killed does not verify it all again."""
        start = reported = time.monotonic()
        objects = size = 0
        waiting: list[Kept] = []

        def note() -> None:
            log.info("fetched objects=%d left=%d bytes=%d seconds=%.1f", objects, len(left), size, reported - start)
            known.note(waiting, time.time())
            waiting.clear()

        for kept in arriving:
            for md5, stamp in kept:
                del left[md5]
                size += stamp.size
            objects += len(kept)
            waiting += kept
            if time.monotonic() - reported > PROGRESS_SECONDS:
                reported = time.monotonic()
                note()
        reported = time.monotonic()
        if waiting:
            note()

    @contextmanager
    def _as_writer(self) -> Iterator[Shelf]:
        """A shelf with a scratch directory on the cache's disk; those of killed processes are removed."""
        try:
            with scratch_directory(self.root / "tmp") as scratch:
                yield Shelf(str(self.root), str(scratch))
        except OSError as cause:
            raise UnavailableError(
                f"the cache {self.root} cannot be written: {cause.strerror or cause}. Check its disk and its owner."
            ) from cause


def _md5() -> hashlib._Hash:
    return hashlib.md5(usedforsecurity=False)
