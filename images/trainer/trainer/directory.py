"""DVC's own formats: where content lies by its md5, the directory object, and the `.dvc` file that points to it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import NamedTuple

ENCODED_AT_ONCE = 10_000

_BEGINNING = b'{"md5": "'
"""Of an entry, and of nothing else: within a path the quote would be escaped."""
_ENTRY = re.compile(rb'{"md5": "([0-9a-f]{32})", "relpath": "((?:[^"\\]|\\.)*)"}')
_SHORTEST, _LONGEST = 1 << 9, 1 << 16
"""Stretches of bytes that are compared at once."""
_quoted = json.encoder.encode_basestring_ascii
MD5 = re.compile(r"[0-9a-f]{32}")


class Entry(NamedTuple):
    """One file of a directory object."""

    md5: str
    relpath: str


def content_path(md5: str) -> str:
    """Path of an object in a DVC remote or cache; directory objects (`<md5>.dir`) lie among the others."""
    return f"files/md5/{md5[:2]}/{md5[2:]}"


def encode(files: Iterable[tuple[str, str]]) -> bytes:
    """The directory object, byte for byte what DVC writes, of (md5, path) of each file in the order of their paths."""
    content = bytearray(b"[")
    # Some at a time, and the JSON of each put together by hand: there are a million, all of the same plain shape.
    rest = iter(files)
    while some := list(islice(rest, ENCODED_AT_ONCE)):
        rows = ", ".join(f'{{"md5": "{md5}", "relpath": {_quoted(path)}}}' for md5, path in some)
        content += f"{', ' if len(content) > 1 else ''}{rows}".encode()
    content += b"]"
    return bytes(content)


def name_of(content: bytes) -> str:
    """The name of a directory object: `<md5>.dir`."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest() + ".dir"


def decode(content: bytes) -> list[Entry]:
    """The entries of a directory object. Raises `ValueError` where it is none."""
    try:
        entries = json.loads(content, object_hook=_entry)
    except (KeyError, TypeError) as cause:
        raise ValueError(f"an entry is malformed: {cause!r}") from cause
    if not isinstance(entries, list) or not all(isinstance(entry, Entry) for entry in entries):
        raise ValueError("not a list of entries")
    return entries


class Cursor:
    """Reads a directory object entry by entry, in the order of their paths, without holding them all."""

    entry: Entry | None = None
    """Where it stands; None behind the last."""

    def __init__(self, content: bytes) -> None:
        """At the first entry. Raises `ValueError`, here and later, at what `encode` does not write."""
        self._content = content
        self._start = self._end = 1
        if content != b"[]":
            self._read(1)

    def advance(self) -> None:
        """Go on to the next entry."""
        if self._content.startswith(b", ", self._end):
            self._read(self._end + 2)
        elif self._content[self._end :] == b"]":
            self.entry = None
        else:
            raise ValueError(f"not what is written here, after {self.entry}")

    def pass_common(self, other: Cursor) -> int:
        """Bring both past entries that they have in common, from an equal one on; how many these were."""
        passed, length = 0, _SHORTEST
        while length >= _SHORTEST:
            stretch = self._content[self._start : self._start + length]
            # An entry that only begins in the stretch may end otherwise.
            whole = stretch.rfind(_BEGINNING)
            if whole > 0 and other._content.startswith(stretch, other._start):
                passed += stretch.count(_BEGINNING, 0, whole)
                self._start += whole
                other._start += whole
                length = min(2 * length, _LONGEST)
            else:
                length //= 2
        if not passed:
            self.advance()
            other.advance()
            return 1
        self._read(self._start)
        other._read(other._start)
        return passed

    def _read(self, start: int) -> None:
        found = _ENTRY.match(self._content, start)
        if not found:
            raise ValueError(f"not what is written here, after {self.entry}")
        md5, quoted = found.groups()
        path = str(json.loads(b'"%s"' % quoted)) if b"\\" in quoted else quoted.decode()
        if self.entry and path < self.entry.relpath:
            raise ValueError(f"not in the order of the paths: {path!r} after {self.entry}")
        self._start, self._end = start, found.end()
        self.entry = Entry(md5.decode(), path)


def pointer(md5: str, path: str) -> str:
    """A `.dvc` file with which a stock `dvc pull` checks the directory out as `path`."""
    # The md5 is quoted: YAML reads one of digits only as a number.
    return f"outs:\n- md5: '{md5}'\n  hash: md5\n  path: {path}\n"


def _entry(row: Mapping[str, object]) -> Entry:
    md5, relpath = row["md5"], row["relpath"]
    if not isinstance(md5, str) or not MD5.fullmatch(md5) or not isinstance(relpath, str):
        raise ValueError(f"an entry is malformed: {row!r}")
    return Entry(md5, relpath)
