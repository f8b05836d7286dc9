"""What Ultralytics would swallow silently is refused here, before the first epoch."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from trainer import memory, parallel
from trainer.errors import DataError
from trainer.pictures import API_MAX_BYTES, API_MAX_PIXELS, Format, NotAPicture, examine, served
from trainer.split import Division, Excluded, Sample

NAMES_SHOWN = 10

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BadFile:
    """A file that is not trained on, and why in words."""

    relpath: str
    cause: str


@dataclass(frozen=True)
class PreflightReport:
    """Pictures per class and split (`{"train": {"cat": 12}}`), and everything that was left out."""

    counts: dict[str, dict[str, int]]
    bad_files: tuple[BadFile, ...]
    label_conflicts: tuple[BadFile, ...]
    duplicates: tuple[BadFile, ...]
    misplaced: tuple[BadFile, ...]


@dataclass(frozen=True)
class Limits:
    """What a project asks of its data; `max_bad_share` is a share of all files, 0 to 1."""

    min_images_per_class: int
    max_bad_share: float


def decode(files: Iterable[tuple[str, Path]]) -> tuple[dict[str, Format], dict[str, str]]:
    """Decode contents, given as (md5, path): the formats of the good ones and the causes of the bad, by md5."""

    def one(file: tuple[str, Path]) -> tuple[str, Format | None, str]:
        md5, path = file
        try:
            return md5, examine(path, room), ""
        except NotAPicture as cause:
            return md5, None, str(cause)

    room = memory.for_pictures()
    formats: dict[str, Format] = {}
    causes: dict[str, str] = {}
    # Threads are enough: Pillow's decoders let go of the interpreter.
    for md5, form, cause in parallel.unordered(one, files, len(os.sched_getaffinity(0))):
        if form is None:
            causes[md5] = cause
        else:
            formats[md5] = form
    return formats, causes


def inspect(division: Division, bad: Iterable[Excluded]) -> PreflightReport:
    """The report on a division of the good files, beside the bad ones."""
    return PreflightReport(
        counts={"train": _counts(division.train), "val": _counts(division.val)},
        bad_files=_reported(bad),
        label_conflicts=_reported(division.conflicts),
        duplicates=_reported(division.duplicates),
        misplaced=_reported(division.misplaced),
    )


def require(report: PreflightReport, labels: Iterable[str], limits: Limits) -> None:
    """Raise `DataError` with every problem at once where this cannot be trained on.

    `labels` are the classes of all files, the bad ones too: a class that has none but bad files is a problem.
    """
    problems = [*_class_problems(report, sorted(set(labels)), limits), *_bad_share(report, limits)]
    for kind, files in (("bad", report.bad_files), ("under two labels", report.label_conflicts)):
        if files:
            log.warning("left out kind=%r files=%d: %s", kind, len(files), _named(files))
    if problems:
        raise DataError("the dataset cannot be trained on: " + "; ".join(problems))


def require_golden(paths: Iterable[Path]) -> None:
    """Raise `DataError` where the API takes none of the validation pictures: no release could be checked."""
    if not any(served(path) for path in paths):
        raise DataError(
            "the dataset cannot be trained on: every validation picture is too large for the API (more than "
            f"{API_MAX_BYTES >> 20} MiB or {API_MAX_PIXELS // 1_000_000} million pixels), so that no answers can be "
            "recorded to check a new model with. Make the pictures smaller."
        )


def _class_problems(report: PreflightReport, labels: list[str], limits: Limits) -> Iterable[str]:
    train, val = report.counts["train"], report.counts["val"]
    if len(labels) < 2:
        hint = "; put pictures into <class>/<name>, or into train/<class>/ and val/<class>/"
        have_one = f"one class ({labels[0]!r})" if labels else "no class"
        yield f"it has {have_one}, at least two are needed{hint}"
    for label in labels:
        have = train.get(label, 0) + val.get(label, 0)
        if not have:
            yield f"the class {label!r} is empty: none of its files can be used{_files_of(report, label)}"
            continue
        for name, counts in (("train", train), ("val", val)):
            if not counts.get(label):
                yield f"the class {label!r} has no picture in {name}"
        if have < limits.min_images_per_class:
            yield f"the class {label!r} has {have} pictures, at least {limits.min_images_per_class} are needed"


def _bad_share(report: PreflightReport, limits: Limits) -> Iterable[str]:
    bad = len(report.bad_files)
    good = sum(count for counts in report.counts.values() for count in counts.values())
    total = bad + good + len(report.duplicates) + len(report.label_conflicts)
    if bad and bad / total > limits.max_bad_share:
        yield (
            f"{bad} of {total} files ({bad / total:.1%}) cannot be used, {limits.max_bad_share:.1%} are allowed: "
            f"{_named(report.bad_files)}. Repair or delete them"
        )


def _files_of(report: PreflightReport, label: str) -> str:
    left_out = (*report.bad_files, *report.label_conflicts)
    files = tuple(file for file in left_out if label in file.relpath.split("/")[:2])
    return f": {_named(files)}" if files else ""


def _named(files: tuple[BadFile, ...]) -> str:
    more = f" and {len(files) - NAMES_SHOWN} more" if len(files) > NAMES_SHOWN else ""
    return ", ".join(f"{file.relpath} ({file.cause})" for file in files[:NAMES_SHOWN]) + more


def _counts(samples: Iterable[Sample]) -> dict[str, int]:
    return dict(sorted(Counter(sample.label for sample in samples).items()))


def _reported(files: Iterable[Excluded]) -> tuple[BadFile, ...]:
    return tuple(BadFile(file.relpath, file.cause) for file in sorted(files))
