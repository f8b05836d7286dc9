"""DVC's own formats: where content lies by its md5, the directory object, and the `.dvc` file that points to it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple

ENCODED_AT_ONCE = 10_000

_ENTRY = re.compile(rb'(?:\[|, ){"md5": "([0-9a-f]{32})", "relpath": "((?:[^"\\]|\\.)*)"}')
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


def scan(content: bytes) -> Iterator[tuple[str, str]]:
    """The md5 and the path of each file, in the order of their paths, without holding them all.

    Raises `ValueError` at what `encode` does not write.
    """
    end = 0
    last = ""
    for found in _ENTRY.finditer(content):
        md5, quoted = found.groups()
        path = str(json.loads(b'"%s"' % quoted)) if b"\\" in quoted else quoted.decode()
        if found.start() != end or path < last:
            break
        end, last = found.end(), path
        yield md5.decode(), path
    if content[end:] not in (b"]", b"[]"):
        raise ValueError(f"not what is written here, after {last!r}")


def pointer(md5: str, path: str) -> str:
    """A `.dvc` file with which a stock `dvc pull` checks the directory out as `path`."""
    # The md5 is quoted: YAML reads one of digits only as a number.
    return f"outs:\n- md5: '{md5}'\n  hash: md5\n  path: {path}\n"


def _entry(row: Mapping[str, object]) -> Entry:
    md5, relpath = row["md5"], row["relpath"]
    if not isinstance(md5, str) or not MD5.fullmatch(md5) or not isinstance(relpath, str):
        raise ValueError(f"an entry is malformed: {row!r}")
    return Entry(md5, relpath)
