"""Contents out of the DVC remote onto the cache's shelf, each verified as it arrives."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import obstore

from trainer import parallel, s3
from trainer.catalogue import DATA_REMOTE
from trainer.contents import Stamp
from trainer.directory import content_path
from trainer.errors import DataError
from trainer.s3 import S3Access
from trainer.shelf import Shelf

CHUNK_BYTES = 4 << 20
SMALL_BYTES = 1 << 20
"""Up to this size an object is one call into obstore, and one write: half of the time of a stream."""
GROUP = 16
"""Small objects that a thread is given at once."""
MOST_THREADS = 64
THREADS_PER_CORE = 4
"""On few cores, more threads wait for the interpreter, not for the server: 32 threads on 2 cores took twice the time
of 8. On many, more of them hide the server's distance."""

Kept = tuple[str, Stamp]


def threads() -> int:
    """Requests in flight at once."""
    return min(MOST_THREADS, THREADS_PER_CORE * len(os.sched_getaffinity(0)))


@dataclass(frozen=True)
class Remote:
    """The DVC remote for datasets in a bucket."""

    store: Any
    bucket: str

    @classmethod
    def of(cls, access: S3Access, bucket: str) -> Remote:
        """The remote in a bucket."""
        return cls(s3.store(access, bucket, DATA_REMOTE), bucket)

    def fetch(self, sizes: Mapping[str, int], shelf: Shelf) -> Iterator[list[Kept]]:
        """Put contents on the shelf, groups of them as they come. Raises `DataError` for one missing or damaged."""

        def one(group: list[str]) -> list[Kept]:
            return [self._fetch(md5, sizes[md5], shelf) for md5 in group]

        yield from parallel.unordered(one, _groups(sizes, threads()), threads())

    def _fetch(self, md5: str, size: int, shelf: Shelf) -> Kept:
        # What arrives damaged is asked for once more before it counts as damaged.
        for _ in range(2):
            if 0 < size <= SMALL_BYTES:  # an empty object has no range
                body = self._read(md5, size)
                if hashlib.md5(body, usedforsecurity=False).hexdigest() == md5:
                    return md5, shelf.put(md5, body)
            elif self._stream(md5, shelf.part(md5)) == md5:
                return md5, shelf.keep(md5)
        raise DataError(
            f"{self._name(md5)} is damaged: its bytes do not have that md5. "
            "Restore the object, or delete it and take a new snapshot."
        )

    def _read(self, md5: str, size: int) -> memoryview:
        with self._reading(md5):
            return memoryview(obstore.get_range(self.store, content_path(md5), start=0, end=size))

    def _stream(self, md5: str, to: str) -> str:
        digest = hashlib.md5(usedforsecurity=False)
        with open(to, "wb", buffering=0) as file, self._reading(md5):
            for chunk in obstore.get(self.store, content_path(md5)).stream(CHUNK_BYTES):
                digest.update(chunk)
                view = memoryview(chunk)
                while view:  # a disk that fills up takes a part of it, and then refuses
                    view = view[file.write(view) :]
        return digest.hexdigest()

    @contextmanager
    def _reading(self, md5: str) -> Iterator[None]:
        with s3.translated(f"reading {self._name(md5)}"):
            try:
                yield
            except FileNotFoundError as missing:
                if "NoSuchBucket" in str(missing):
                    raise
                raise DataError(f"{self._name(md5)} is missing. Restore it, or take a new snapshot.") from missing

    def _name(self, md5: str) -> str:
        return f"{self.bucket}/{DATA_REMOTE}/{content_path(md5)}"


def _groups(sizes: Mapping[str, int], threads: int) -> Iterable[list[str]]:
    # Large ones first and alone, so that no long one is left for the end.
    for md5 in sorted((md5 for md5, size in sizes.items() if size > SMALL_BYTES), key=lambda md5: -sizes[md5]):
        yield [md5]
    small = [md5 for md5, size in sizes.items() if size <= SMALL_BYTES]
    step = max(1, min(GROUP, len(small) // (threads * parallel.WAITING_PER_THREAD)))
    for start in range(0, len(small), step):
        yield small[start : start + step]
