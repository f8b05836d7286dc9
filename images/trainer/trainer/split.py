"""Which pictures are trained on and which validate: decided by content alone, so that it survives growth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from trainer.directory import Entry
from trainer.layout import Layout, Place, Split, place

ALWAYS_VALIDATING = 2
"""So many of a class's lowest md5s validate whatever the share, so that a small class is not without."""


class Sample(NamedTuple):
    """One content with one label; `relpath` is the first of its files by name."""

    md5: str
    relpath: str
    label: str


class Excluded(NamedTuple):
    """A file that is not used, and why in words."""

    relpath: str
    cause: str


@dataclass(frozen=True)
class Division:
    """Every entry of a dataset is in exactly one of these."""

    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    misplaced: tuple[Excluded, ...]
    duplicates: tuple[Excluded, ...]
    conflicts: tuple[Excluded, ...]


def divide(entries: Iterable[Entry], layout: Layout, val_share: float) -> Division:
    """Divide a dataset.

    In a flat layout no picture moves from train into val while files are only added: its share of the hash stays,
    and its rank in its class only rises, since contents that are left out for two labels keep their rank.
    A split layout is kept; val wins where both hold a content.
    """
    placed: dict[str, list[tuple[str, Place]]] = defaultdict(list)
    misplaced: list[Excluded] = []
    for entry in sorted(entries, key=lambda entry: entry.relpath):
        where = place(entry.relpath, layout)
        if isinstance(where, Place):
            placed[entry.md5].append((entry.relpath, where))
        else:
            misplaced.append(Excluded(entry.relpath, where))
    validating = _validating(placed, val_share) if layout == "flat" else set()
    chosen: dict[Split, list[Sample]] = {"train": [], "val": []}
    duplicates: list[Excluded] = []
    conflicts: list[Excluded] = []
    for md5, files in placed.items():
        if len({where.label for _, where in files}) > 1:
            conflicts.extend(_conflicts(files))
            continue
        relpath, where = min(files, key=lambda file: (file[1].split != "val", file[0]))
        split = where.split or ("val" if (where.label, md5) in validating else "train")
        chosen[split].append(Sample(md5, relpath, where.label))
        duplicates.extend(Excluded(other, f"the same picture as {relpath}") for other, _ in files if other != relpath)
    return Division(
        train=tuple(sorted(chosen["train"], key=lambda sample: sample.relpath)),
        val=tuple(sorted(chosen["val"], key=lambda sample: sample.relpath)),
        misplaced=tuple(misplaced),
        duplicates=tuple(sorted(duplicates)),
        conflicts=tuple(sorted(conflicts)),
    )


def in_share(md5: str, val_share: float) -> bool:
    """Whether a content's hash lies below the share of validation pictures."""
    return int(md5[:8], 16) / 2**32 < val_share


def _validating(placed: dict[str, list[tuple[str, Place]]], val_share: float) -> set[tuple[str, str]]:
    of_class: dict[str, set[str]] = defaultdict(set)
    for md5, files in placed.items():
        for _, where in files:
            of_class[where.label].add(md5)
    return {
        (label, md5)
        for label, md5s in of_class.items()
        for rank, md5 in enumerate(sorted(md5s))
        if rank < ALWAYS_VALIDATING or in_share(md5, val_share)
    }


def _conflicts(files: list[tuple[str, Place]]) -> Iterable[Excluded]:
    labels = sorted({where.label for _, where in files})
    for relpath, _ in files:
        yield Excluded(relpath, f"the same picture under the labels {', '.join(labels)}")
