"""What Ultralytics would swallow silently is refused here, before the first epoch."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer import memory, parallel
from trainer.errors import DataError, UnavailableError
from trainer.examinations import Examinations
from trainer.pictures import API_MAX_BYTES, API_MAX_PIXELS, Examined, NotAPicture, examine, served_at
from trainer.progress import Progress
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


class Refused(DataError):
    """The dataset itself cannot be trained on; `files` are the report that says why, and all else that was found."""

    def __init__(self, message: str, files: Sequence[Path] = ()) -> None:
        super().__init__(message)
        self.files = files


@dataclass(frozen=True)
class Limits:
    """What a project asks of its data; `max_bad_share` is a share of all files, 0 to 1."""

    min_images_per_class: int
    max_bad_share: float


@dataclass(frozen=True)
class Decoded:
    """Contents by md5: the good ones, the causes of the bad, and how many had to be decoded for it."""

    good: dict[str, Examined]
    causes: dict[str, str]
    anew: int


def decode(md5s: Iterable[str], path: Callable[[str], Path], known: Examinations) -> Decoded:
    """Decode what this host does not know yet of these contents, which lie at `path`.

    Raises `UnavailableError` where a file cannot be read.
    """

    def one(md5: str) -> tuple[str, Examined | NotAPicture]:
        try:
            return md5, examine(path(md5), room)
        except NotAPicture as cause:
            return md5, cause
        except OSError as cause:
            raise UnavailableError(
                f"the picture {path(md5)} cannot be read ({cause.strerror}). Check the disk of the cache and run again."
            ) from cause

    contents = sorted(set(md5s))
    good, causes = known.recall(contents)
    unknown = [md5 for md5 in contents if md5 not in good and md5 not in causes]
    start = time.monotonic()
    progress = Progress("decoding", len(unknown))
    room = memory.for_pictures()
    # Threads are enough: Pillow's decoders let go of the interpreter.
    for md5, outcome in parallel.unordered(one, unknown, len(os.sched_getaffinity(0))):
        progress.add(1)
        if isinstance(outcome, Examined):
            good[md5] = outcome
            known.note(md5, outcome)
            continue
        causes[md5] = str(outcome)
        if outcome.lasting:
            known.note(md5, causes[md5])
    log.info(
        "decoded pictures=%d of=%d bad=%d seconds=%.1f",
        len(unknown),
        len(contents),
        len(causes),
        time.monotonic() - start,
    )
    return Decoded(good, causes, len(unknown))


def inspect(division: Division, bad: Iterable[Excluded]) -> PreflightReport:
    """The report on a division of the good files, beside the bad ones."""
    return PreflightReport(
        counts={"train": _counts(division.train), "val": _counts(division.val)},
        bad_files=_reported(bad),
        label_conflicts=_reported(division.conflicts),
        duplicates=_reported(division.duplicates),
        misplaced=_reported(division.misplaced),
    )


def log_left_out(report: PreflightReport) -> None:
    """Name in the log what a person may not know of; duplicates and misplaced files are mere untidiness."""
    for kind, files in (("bad", report.bad_files), ("under two labels", report.label_conflicts)):
        if files:
            log.warning("left out kind=%r files=%d: %s", kind, len(files), _named(files))


def problems(report: PreflightReport, labels: Iterable[str], limits: Limits) -> list[str]:
    """Everything for which this cannot be trained on, in words.

    `labels` are the classes of all files, the bad ones too: a class that has none but bad files is a problem.
    """
    return [*_class_problems(report, sorted(set(labels)), limits), *_bad_share(report, limits)]


def golden_problems(validating: Iterable[tuple[int, Examined]]) -> list[str]:
    """What is wrong where the API takes none of the validation pictures, given with their bytes.

    No release could be checked then.
    """
    pictures = list(validating)
    if not pictures or any(served_at(size, each.width, each.height) for size, each in pictures):
        return []
    return [
        f"every validation picture is too large for the API (more than {API_MAX_BYTES >> 20} MiB or "
        f"{API_MAX_PIXELS // 1_000_000} million pixels), so that no answers can be recorded to check a new model "
        "with. Make the pictures smaller."
    ]


def require(problems: Sequence[str], files: Sequence[Path] = ()) -> None:
    """Raise `Refused`, with the files of the report, where there is a problem."""
    if problems:
        raise Refused("the dataset cannot be trained on: " + "; ".join(problems), files)


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
