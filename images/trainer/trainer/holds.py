"""What the living runs of a host need of its cache, so that nobody evicts it.

Each run writes a file of its contents below `holds/` and keeps it locked for the rest of its life; the kernel drops
that lock with the process. One more lock orders it against the evictor: who has written its hold before the evictor
looked is spared, and who comes later looks at the cache when the eviction is over.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

FOLDER = "holds"
LOCK = "holds.lock"


def hold(root: Path, sizes: Mapping[str, int]) -> None:
    """Hold contents (bytes by md5) for the rest of this process's life; called before it looks for them.

    Holds of dead runs are swept on the way.
    """
    with locked(root):
        living(root)
        path = root / FOLDER / uuid.uuid4().hex
        path.parent.mkdir(exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)  # never closed: see above
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            with open(handle, "w", closefd=False) as file:
                file.writelines(f"{md5} {size}\n" for md5, size in sizes.items())
        except BaseException:
            path.unlink()
            os.close(handle)
            raise


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """While this lasts nobody begins to hold, and nobody evicts."""
    with open(root / LOCK, "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def living(root: Path) -> dict[str, int]:
    """Bytes by md5 of what living runs hold, under the lock; the holds of dead ones are removed."""
    held: dict[str, int] = {}
    with suppress(FileNotFoundError):
        for each in os.scandir(root / FOLDER):
            with open(each.path) as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    held.update((md5, int(size)) for md5, size in (line.split() for line in file))
                else:
                    os.unlink(each.path)
    return held
