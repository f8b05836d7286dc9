"""Where contents lie in the host's cache, and the one way in which a file gets there."""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trainer.contents import Stamp

READ_ONLY = 0o444  # as in DVC's own cache


@dataclass(frozen=True)
class Shelf:
    """`files/md5/ab/cdef…` below `root`, and a directory of this run's on the same disk for what is not whole yet."""

    root: str
    scratch: str

    def path(self, md5: str) -> str:
        """Where a content lies."""
        return f"{self.root}/files/md5/{md5[:2]}/{md5[2:]}"

    def part(self, md5: str) -> str:
        """Where a content is written before it is whole."""
        # In a folder for each of the shelf's: threads that write stand in each other's way in a single large one.
        return f"{self.scratch}/{md5[:2]}/{md5}"

    def make_folders(self, md5s: Iterable[str]) -> None:
        """The folders that these contents need, once for all."""
        for prefix in {md5[:2] for md5 in md5s}:
            os.makedirs(f"{self.root}/files/md5/{prefix}", exist_ok=True)
            os.makedirs(f"{self.scratch}/{prefix}", exist_ok=True)

    def put(self, md5: str, body: bytes | memoryview) -> Stamp:
        """Put a verified content on the shelf."""
        handle = os.open(self.part(md5), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, READ_ONLY)
        try:
            written = 0
            while written < len(body):  # a disk that fills up takes a part of it, and then refuses
                written += os.write(handle, body[written:] if written else body)
            return self._keep(handle, md5)
        finally:
            os.close(handle)

    def keep(self, md5: str) -> Stamp:
        """Put what lies at `part`, whole and verified, on the shelf."""
        handle = os.open(self.part(md5), os.O_RDONLY)
        try:
            return self._keep(handle, md5)
        finally:
            os.close(handle)

    def _keep(self, handle: int, md5: str) -> Stamp:
        found = os.fstat(handle)
        if found.st_mode & 0o777 != READ_ONLY:
            os.fchmod(handle, READ_ONLY)
        os.rename(self.part(md5), self.path(md5))
        return Stamp(found.st_size, found.st_mtime_ns, found.st_ino)


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
