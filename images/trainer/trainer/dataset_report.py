"""What preflight found in a snapshot, as `report.json` tells it (docs/contracts.md)."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from itertools import chain, islice, zip_longest
from statistics import median

from trainer.catalogue import Record
from trainer.directory import Entry
from trainer.layout import Layout, Place, place
from trainer.preflight import Limits, PreflightReport
from trainer.remedies import remedy
from trainer.split import Division, Excluded, Sample

SHOWN = 60
"""Pictures on the contact sheet."""
SHARE_OF_MEDIAN = 10
"""A class is nearly empty below the median class's pictures divided by this."""


@dataclass(frozen=True)
class Parent:
    """The md5s of the snapshot before, None where there is none or it cannot be read; `note` says so in words."""

    md5s: frozenset[str] | None
    note: str


@dataclass(frozen=True)
class Findings:
    """What a report is made from. `bad` are the files that cannot be trained on, `problems` refuse the whole."""

    record: Record
    entries: Sequence[Entry]
    labels: Sequence[str]
    division: Division
    bad: Sequence[Excluded]
    report: PreflightReport
    problems: Sequence[str]
    limits: Limits
    parent: Parent


@dataclass(frozen=True)
class Snapshot:
    """Which snapshot; fields as in its record."""

    id: str
    md5: str
    parent: str | None
    created_at: str
    bucket: str
    bytes: int


@dataclass(frozen=True)
class Counts:
    """Files of the snapshot; every one is in exactly one of the others."""

    files: int
    train: int
    val: int
    unusable: int
    duplicates: int
    conflicts: int
    misplaced: int


@dataclass(frozen=True)
class ClassBalance:
    """Pictures of a class; `new` are those whose content the parent lacks, None where that is not known."""

    label: str
    train: int
    val: int
    new: int | None


@dataclass(frozen=True)
class Shown:
    """A picture on the contact sheet."""

    md5: str
    relpath: str
    label: str


@dataclass(frozen=True)
class ContactSheet:
    """Pictures that are new against the parent, or a sample of all where there is none (`note` says which).

    `pictures` is how many there are, of which some are `shown`.
    """

    note: str
    pictures: int
    shown: tuple[Shown, ...]


@dataclass(frozen=True)
class SmallClass:
    """A class with few pictures."""

    label: str
    pictures: int


@dataclass(frozen=True)
class SmallClasses:
    """The classes that the rule calls nearly empty, the smallest first."""

    rule: str
    classes: tuple[SmallClass, ...]


@dataclass(frozen=True)
class Unusable:
    """A file that cannot be trained on, why, and what to do."""

    relpath: str
    cause: str
    remedy: str


@dataclass(frozen=True)
class Duplicates:
    """Files of one content and label: one is trained on."""

    md5: str
    kept: str
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class Conflict:
    """Files of one content under several labels: none is trained on."""

    md5: str
    labels: tuple[str, ...]
    files: tuple[str, ...]


@dataclass(frozen=True)
class Misplaced:
    """A file that is in no class, and why."""

    relpath: str
    cause: str


@dataclass(frozen=True)
class DatasetReport:
    """The whole report; `problems` is empty where the dataset can be trained on."""

    project: str
    snapshot: Snapshot
    problems: tuple[str, ...]
    counts: Counts
    classes: tuple[ClassBalance, ...]
    contact_sheet: ContactSheet
    small_classes: SmallClasses
    unusable: tuple[Unusable, ...]
    duplicates: tuple[Duplicates, ...]
    conflicts: tuple[Conflict, ...]
    misplaced: tuple[Misplaced, ...]


def build(findings: Findings) -> DatasetReport:
    """The report; the same findings give the same one."""
    record, division = findings.record, findings.division
    samples = [*division.train, *division.val]
    known = findings.parent.md5s
    new = samples if known is None else [sample for sample in samples if sample.md5 not in known]
    classes = _classes(findings, None if known is None else new)
    return DatasetReport(
        project=record.project,
        snapshot=Snapshot(record.id, record.md5, record.parent, record.created_at, record.bucket, record.bytes),
        problems=tuple(findings.problems),
        counts=Counts(
            files=len(findings.entries),
            train=len(division.train),
            val=len(division.val),
            unusable=len(findings.bad),
            duplicates=len(division.duplicates),
            conflicts=len(division.conflicts),
            misplaced=len(division.misplaced),
        ),
        classes=classes,
        contact_sheet=ContactSheet(findings.parent.note, len(new), _spread(new)),
        small_classes=_small(classes, findings.limits.min_images_per_class),
        unusable=tuple(Unusable(relpath, cause, remedy(cause)) for relpath, cause in sorted(findings.bad)),
        duplicates=_duplicates(findings, samples),
        conflicts=_conflicts(findings),
        misplaced=tuple(Misplaced(*each) for each in division.misplaced),
    )


def as_json(report: DatasetReport) -> str:
    """The report as JSON. Neither by `asdict` nor indented: with a hundred thousand duplicates that takes seconds."""
    return json.dumps(report, default=vars)


def _classes(findings: Findings, new: Iterable[Sample] | None) -> tuple[ClassBalance, ...]:
    train, val = (Counter(each.label for each in side) for side in (findings.division.train, findings.division.val))
    added = None if new is None else Counter(each.label for each in new)
    return tuple(
        ClassBalance(label, train[label], val[label], None if added is None else added[label])
        for label in sorted(findings.labels)
    )


def _spread(samples: Iterable[Sample]) -> tuple[Shown, ...]:
    """Some of these, one class after the other; which ones, the md5 decides, so that names do not."""
    by_class: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_class[sample.label].append(sample)
    # Where there are more classes than places, the md5 decides on the classes too.
    classes = sorted((nsmallest(SHOWN, group) for group in by_class.values()), key=lambda group: group[0].md5)
    turns = chain.from_iterable(zip_longest(*classes))
    chosen = list(islice((sample for sample in turns if sample), SHOWN))
    return tuple(Shown(*sample) for sample in sorted(chosen, key=lambda sample: (sample.label, sample.md5)))


def _small(classes: Sequence[ClassBalance], minimum: int) -> SmallClasses:
    sizes = {each.label: each.train + each.val for each in classes}
    middle = median(sizes.values()) if sizes else 0
    few = sorted((size, label) for label, size in sizes.items() if size < max(2 * minimum, middle / SHARE_OF_MEDIAN))
    rule = (
        f"fewer than {2 * minimum} pictures (twice what a class needs), "
        f"or than one in {SHARE_OF_MEDIAN} of the median class's {middle:g}"
    )
    return SmallClasses(rule, tuple(SmallClass(label, size) for size, label in few))


def _duplicates(findings: Findings, samples: Iterable[Sample]) -> tuple[Duplicates, ...]:
    groups = _by_content(findings.entries, findings.division.duplicates)
    kept = {sample.md5: sample.relpath for sample in samples if sample.md5 in groups}
    found = [Duplicates(md5, kept[md5], tuple(files)) for md5, files in groups.items()]
    return tuple(sorted(found, key=lambda each: each.kept))


def _conflicts(findings: Findings) -> tuple[Conflict, ...]:
    groups = _by_content(findings.entries, findings.division.conflicts)
    found = [Conflict(md5, _labels(files, findings.record.layout), tuple(files)) for md5, files in groups.items()]
    return tuple(sorted(found, key=lambda each: each.files))


def _labels(files: Iterable[str], layout: Layout) -> tuple[str, ...]:
    places = (place(relpath, layout) for relpath in files)
    return tuple(sorted({where.label for where in places if isinstance(where, Place)}))


def _by_content(entries: Iterable[Entry], excluded: Iterable[Excluded]) -> Mapping[str, list[str]]:
    wanted = {each.relpath for each in excluded}
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for md5, relpath in entries:
        if relpath in wanted:
            groups[md5].append(relpath)
    return {md5: sorted(files) for md5, files in groups.items()}
