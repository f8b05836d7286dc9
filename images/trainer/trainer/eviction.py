"""Keeps the host's cache below its limit: what was not used for longest goes, never what a living run needs."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from trainer import holds
from trainer.contents import Contents
from trainer.errors import ConfigError, UnavailableError

CONTENT = re.compile(r"[0-9a-f]{30}(\.dir)?")

log = logging.getLogger(__name__)


class File(NamedTuple):
    """A file of the cache; `used_at` in seconds since the epoch, `linked`: a tree has a link to it."""

    used_at: float
    md5: str
    path: str
    size: int
    linked: bool


def make_room(root: Path, limit_bytes: int, sizes: Mapping[str, int], contents: Contents) -> None:
    """Evict until what is there and what the living runs still fetch, this one with `sizes` too, is within the limit.

    Raises `ConfigError` where the dataset alone is beyond the limit, `UnavailableError` where other runs hold too much.
    """
    need = sum(sizes.values())
    if need > limit_bytes:
        raise ConfigError(
            f"the cache {root} may hold {_mib(limit_bytes)} (CACHE_LIMIT_BYTES), the dataset alone has {_mib(need)}. "
            "Raise the limit (AIRLOCK_CACHE_LIMIT in .env), or empty it."
        )
    with holds.locked(root):
        held = {**holds.living(root), **sizes}
        files = list(_files(str(root), contents.used()))
        present = {file.md5 for file in files}
        coming = sum(size for md5, size in held.items() if md5 not in present)
        excess = sum(file.size for file in files) + coming - limit_bytes
        excess -= _evict((file for file in sorted(files) if not file.linked and file.md5 not in held), excess, contents)
    if excess > 0:
        raise UnavailableError(
            f"the cache {root} may hold {_mib(limit_bytes)} (CACHE_LIMIT_BYTES), and {_mib(excess)} too much are in "
            "use by other runs. Run again when one of them has ended, or raise the limit (AIRLOCK_CACHE_LIMIT in .env)."
        )


def unused(root: Path, before: float, contents: Contents, *, delete: bool) -> tuple[int, int]:
    """Contents that were not used since that time (seconds since the epoch), and their bytes; with `delete` they go.

    Never what a living run needs, nor what has further links.
    """
    with holds.locked(root):
        held = holds.living(root)
        found = [
            file
            for file in _files(str(root), contents.used())
            if file.used_at < before and not file.linked and file.md5 not in held
        ]
        size = sum(file.size for file in found)
        if delete:
            _evict(found, size, contents)
    return len(found), size


def _evict(files: Iterable[File], wanted_bytes: int, contents: Contents) -> int:
    """Remove files in this order until so many bytes are free; the bytes that are."""
    freed = 0
    gone: list[str] = []
    for file in files:
        if freed >= wanted_bytes:
            break
        with suppress(FileNotFoundError):
            os.unlink(file.path)
        freed += file.size
        gone.append(file.md5)
    if gone:
        contents.forget(gone)
        log.info("cache.evicted objects=%d bytes=%d", len(gone), freed)
    return freed


def _files(root: str, used: Mapping[str, float]) -> Iterator[File]:
    """Every content of the cache; one that nobody remembers was last used when it was written."""
    for number in range(256):
        prefix = f"{number:02x}"
        with suppress(FileNotFoundError), os.scandir(f"{root}/files/md5/{prefix}") as entries:
            for entry in entries:
                if not CONTENT.fullmatch(entry.name):  # a file that another program is about to write
                    continue
                with suppress(FileNotFoundError):
                    stat = entry.stat(follow_symlinks=False)
                    md5 = prefix + entry.name
                    yield File(used.get(md5, stat.st_mtime), md5, entry.path, stat.st_size, stat.st_nlink > 1)


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
