"""Packs: many small contents in a few large objects, for a host that lacks them all. Deleting packs loses nothing.

In `packs/<project>/`, `<name>.pack` holds contents one after the other; `<name>.index` says which, as JSON
`[[md5, offset, size]]`. The name is the md5 of the index, which is written last: what is not whole is not seen, and two
hosts that pack the same contents write the same objects.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import obstore
from obstore.exceptions import BaseError

from trainer import parallel, s3
from trainer.remote import SMALL_BYTES, Kept
from trainer.s3 import S3Access
from trainer.shelf import Shelf

FEWEST = 256
"""Fewer small contents are as quick one by one; they are neither looked for in packs nor packed."""
PACK_BYTES = 64 << 20
RANGE_BYTES = 4 << 20
"""What a thread reads at once."""
GAP_BYTES = 64 << 10
"""Bytes that nobody wants are read along up to here: a request of its own for what follows them takes longer."""
WORTH = 4
"""Contents that a range must hold to be read."""

log = logging.getLogger(__name__)


class Slice(NamedTuple):
    """Where a content lies in a pack."""

    offset: int
    md5: str
    size: int


class Range(NamedTuple):
    """A part of a pack that is read at once, and what is wanted of it."""

    name: str
    slices: list[Slice]


@dataclass
class Packs:
    """The packs of a project, as they were when this was opened. Trouble with them is a warning, never an error."""

    store: Any
    indexes: dict[str, list[Slice]] = field(default_factory=dict)

    @classmethod
    def opened(cls, access: S3Access, bucket: str, project: str) -> Packs:
        """The packs of a project in the bucket `dvc`."""
        packs = cls(s3.store(access, bucket, f"packs/{project}"))
        try:
            keys = parallel.aside(lambda: [each["path"] for each in obstore.list(packs.store).collect()])
        except (BaseError, FileNotFoundError) as cause:
            log.warning("packs.not_listed cause=%s", _words(cause))
            return packs
        names = [key.removesuffix(".index") for key in keys if key.endswith(".index")]
        packs.indexes = {name: slices for name, slices in parallel.unordered(packs._index, names, 8) if slices}
        return packs

    def fetch(self, sizes: Mapping[str, int], shelf: Shelf) -> Iterator[list[Kept]]:
        """Put on the shelf what packs hold of these contents, each verified; some may be left."""
        ranges = list(self._ranges(sizes))
        log.info("packs indexes=%d ranges=%d", len(self.indexes), len(ranges))
        yield from parallel.unordered(lambda each: self._read(each, shelf), ranges, 2 * len(os.sched_getaffinity(0)))

    def add(self, sizes: Mapping[str, int], shelf: Shelf) -> None:
        """Pack those of these contents that are small and in no sound pack yet; they are on the shelf."""
        packed = {each.md5 for slices in self.indexes.values() for each in slices}
        new = sorted(md5 for md5, size in sizes.items() if 0 < size <= SMALL_BYTES and md5 not in packed)
        if len(new) < FEWEST:
            return
        start = time.monotonic()
        try:
            for group in _groups(new, sizes):
                self._write(group, sizes, shelf)
        except (BaseError, OSError) as cause:
            log.warning("packs.not_written cause=%s: other hosts fetch the contents one by one", _words(cause))
            return
        log.info("packs.written objects=%d seconds=%.1f", len(new), time.monotonic() - start)

    def _index(self, name: str) -> tuple[str, list[Slice]]:
        try:
            content = obstore.get(self.store, f"{name}.index").bytes().to_bytes()
        except (BaseError, FileNotFoundError) as cause:
            log.warning("packs.not_read index=%s cause=%s", name, _words(cause))
            return name, []
        if _md5(content) != name:
            self._remove(name, "its index is damaged")
            return name, []
        return name, [Slice(offset, md5, size) for md5, offset, size in json.loads(content)]

    def _remove(self, name: str, why: str) -> None:
        """Remove a pack that does not hold what it should: what can be had of it is packed again."""
        log.warning("packs.removed pack=%s: %s. What it held is packed again.", name, why)
        self.indexes.pop(name, None)
        try:
            obstore.delete(self.store, [f"{name}.index", f"{name}.pack"])
        except (BaseError, FileNotFoundError) as cause:
            log.warning("packs.not_removed pack=%s cause=%s", name, _words(cause))

    def _ranges(self, sizes: Mapping[str, int]) -> Iterator[Range]:
        taken: set[str] = set()
        for name, slices in self.indexes.items():
            wanted: list[Slice] = []
            for each in sorted(each for each in slices if each.md5 in sizes and each.md5 not in taken):
                if wanted and (
                    each.offset - wanted[-1].offset - wanted[-1].size > GAP_BYTES
                    or each.offset + each.size - wanted[0].offset > RANGE_BYTES
                ):
                    yield from self._worthwhile(name, wanted, taken)
                    wanted = []
                wanted.append(each)
            yield from self._worthwhile(name, wanted, taken)

    def _worthwhile(self, name: str, wanted: list[Slice], taken: set[str]) -> Iterator[Range]:
        if len(wanted) >= WORTH:
            taken.update(each.md5 for each in wanted)
            yield Range(name, wanted)

    def _read(self, part: Range, shelf: Shelf) -> list[Kept]:
        first, last = part.slices[0], part.slices[-1]
        start, end = first.offset, last.offset + last.size
        try:
            content = obstore.get_range(self.store, f"{part.name}.pack", start=start, end=end)
        except FileNotFoundError:
            self._remove(part.name, "only its index is there")
            return []
        except BaseError as cause:
            log.warning("packs.not_read pack=%s cause=%s", part.name, _words(cause))
            return []
        view = memoryview(content)
        kept: list[Kept] = []
        for offset, md5, size in part.slices:
            body = view[offset - start : offset - start + size]
            if _md5(body) == md5:
                kept.append((md5, shelf.put(md5, body)))
        if len(kept) < len(part.slices):
            self._remove(part.name, f"{len(part.slices) - len(kept)} of its contents are damaged")
        return kept

    def _write(self, md5s: list[str], sizes: Mapping[str, int], shelf: Shelf) -> None:
        body = bytearray()
        index: list[tuple[str, int, int]] = []
        for md5 in md5s:
            index.append((md5, len(body), sizes[md5]))
            with open(shelf.path(md5), "rb", buffering=0) as file:
                body += file.read()
        content = json.dumps(index).encode()
        name = _md5(content)

        def upload() -> None:
            obstore.put(self.store, f"{name}.pack", bytes(body))
            obstore.put(self.store, f"{name}.index", content)

        parallel.aside(upload)


def _groups(md5s: Iterable[str], sizes: Mapping[str, int]) -> Iterator[list[str]]:
    group: list[str] = []
    total = 0
    for md5 in md5s:
        if total + sizes[md5] > PACK_BYTES:
            yield group
            group, total = [], 0
        group.append(md5)
        total += sizes[md5]
    if group:
        yield group


def _md5(content: bytes | memoryview) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _words(cause: Exception) -> str:
    return (str(cause).splitlines() or [type(cause).__name__])[0]  # the rest is obstore's internal state
