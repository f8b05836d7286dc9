"""Which object keys can be file names of a checkout, on every file system."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from trainer.errors import DataError

NAMES_SHOWN = 10
LONGEST_NAME_BYTES = 255

KEPT_BY_DVC = frozenset({".dvc", ".dvcignore", ".git", ".hg"})
"""DVC passes them over, or refuses their folder: a checkout with one counts as modified for ever."""

_RESERVED = rf"\.{{1,2}}|(?i:{'|'.join(map(re.escape, sorted(KEPT_BY_DVC)))})"
_PART = rf"(?!(?:{_RESERVED})(?:/|$))[ !#-.0-9:-\[\]-~\"]+"
_PLAIN = re.compile(rf"{_PART}(?:/{_PART})*")
"""Printable ASCII without backslashes, in parts that are neither empty nor dots nor reserved."""


def impossible(keys: Sequence[str]) -> list[str]:
    """Keys that no checkout can hold, each with the cause in words."""
    return [] if _all_plain(keys) else _problems(keys)


def refuse(bucket: str, problems: list[str]) -> None:
    """Raise `DataError` where there are problems, naming the first of them."""
    if problems:
        more = f" and {len(problems) - NAMES_SHOWN} more" if len(problems) > NAMES_SHOWN else ""
        raise DataError(
            f"{bucket} holds {len(problems)} objects whose names no checkout can hold: "
            f"{', '.join(problems[:NAMES_SHOWN])}{more}. Rename or delete them."
        )


def _all_plain(keys: Sequence[str]) -> bool:
    """Whether the keys are plain and all differ without case: found quickly, as it is so for nearly every bucket.

    False may be wrong: two names can have the same hash, of which a set takes half the memory.
    """
    names: set[int] = set()
    folders: set[str] = set()
    last = None
    for key in keys:
        if len(key) > LONGEST_NAME_BYTES or not _PLAIN.fullmatch(key):
            return False
        names.add(hash(key.lower()))
        folder = key.rpartition("/")[0]
        if folder != last:
            folders.update(_folders(key))
            last = folder
    folded = {folder.lower() for folder in folders}
    return len(names) == len(keys) and len(folded) == len(folders) and names.isdisjoint(map(hash, folded))


def _problems(keys: Iterable[str]) -> list[str]:
    problems: list[str] = []
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for key in keys:
        if cause := _unsafe(key):
            problems.append(f"{key!r} ({cause})")
            continue
        folded = _folded(key)
        if folded in files:
            problems.append(f"{key!r} (the same name as {files[folded]!r} where case does not count)")
            continue
        files[folded] = key
        for folder in _folders(key):
            known = folders.setdefault(_folded(folder), folder)
            if known != folder:
                problems.append(f"{key!r} (its folder has the same name as {known!r} where case does not count)")
                break
    problems.extend(f"{files[name]!r} (is a file and a folder)" for name in sorted(files.keys() & folders.keys()))
    return problems


def _unsafe(key: str) -> str | None:
    parts = key.split("/")
    if key.startswith("/"):
        return "an absolute path"
    if ".." in parts or "." in parts:
        return "leads out of its folder"
    if "" in parts:
        return "an empty folder name"
    if "\\" in key:
        return "a backslash"
    if not KEPT_BY_DVC.isdisjoint(map(_folded, parts)):
        return f"a name that DVC keeps for itself: {', '.join(sorted(KEPT_BY_DVC))}"
    # U+FFFD stands where the server could not put a character into its XML.
    if "\ufffd" in key or any(unicodedata.category(c) in {"Cc", "Cs"} for c in key if not c.isalnum()):
        return "a control character"
    if any(len(part.encode()) > LONGEST_NAME_BYTES for part in parts):
        return f"a name longer than {LONGEST_NAME_BYTES} bytes"
    return None


def _folders(key: str) -> Iterator[str]:
    end = key.find("/")
    while end >= 0:
        yield key[:end]
        end = key.find("/", end + 1)


def _folded(name: str) -> str:
    return name.lower() if name.isascii() else unicodedata.normalize("NFC", name).casefold()
