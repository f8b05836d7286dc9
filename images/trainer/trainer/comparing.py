"""What is new, gone and changed between two states of a dataset."""

from __future__ import annotations

from trainer.catalogue import Diff
from trainer.directory import Cursor


def compare(now: bytes, before: bytes) -> tuple[list[bool], Diff]:
    """Whether each file of `now` was there with the same content, and the counts. Both are directory objects."""
    ours, theirs = Cursor(now), Cursor(before)
    unchanged: list[bool] = []
    added = removed = changed = 0
    while ours.entry or theirs.entry:
        if ours.entry == theirs.entry:
            unchanged.extend([True] * ours.pass_common(theirs))
        elif not ours.entry or (theirs.entry and theirs.entry.relpath < ours.entry.relpath):
            removed += 1
            theirs.advance()
        else:
            unchanged.append(False)
            if theirs.entry and theirs.entry.relpath == ours.entry.relpath:
                changed += 1
                theirs.advance()
            else:
                added += 1
            ours.advance()
    return unchanged, Diff(added=added, removed=removed, changed=changed)
