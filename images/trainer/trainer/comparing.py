"""What is new, gone and changed between two states of a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from trainer.catalogue import Diff

File = tuple[str, str]
"""The md5 and the path of a file."""


def compare(now: Iterable[File], before: Iterable[File]) -> tuple[list[bool], Diff]:
    """Whether each file of `now` was there with the same content, and the counts. Both are in order of their paths."""
    unchanged: list[bool] = []
    added = removed = changed = 0
    for md5, earlier in _joined(now, before):
        if md5 is None:
            removed += 1
            continue
        unchanged.append(md5 == earlier)
        if earlier is None:
            added += 1
        elif md5 != earlier:
            changed += 1
    return unchanged, Diff(added=added, removed=removed, changed=changed)


def _joined(now: Iterable[File], before: Iterable[File]) -> Iterator[tuple[str | None, str | None]]:
    """For each path of either, its md5 now and its md5 before."""
    rest = iter(before)
    earlier = next(rest, None)
    for md5, path in now:
        while earlier and earlier[1] < path:
            yield None, earlier[0]
            earlier = next(rest, None)
        if earlier and earlier[1] == path:
            yield md5, earlier[0]
            earlier = next(rest, None)
        else:
            yield md5, None
    while earlier:
        yield None, earlier[0]
        earlier = next(rest, None)
