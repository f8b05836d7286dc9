"""One call that turns a snapshot into a directory that Ultralytics can train on."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from trainer import contact_sheet, examinations, preflight, report_files, split, tree
from trainer.cache import Cache
from trainer.catalogue import Catalogue, Record
from trainer.dataset_report import Findings, Parent
from trainer.directory import Entry
from trainer.layout import Place, Split, place
from trainer.pictures import Examined
from trainer.preflight import Decoded, Limits, PreflightReport
from trainer.s3 import S3Access
from trainer.split import Excluded, Sample

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Picture:
    """One picture of the training or validation set; `path` is its link in the tree."""

    md5: str
    relpath: str
    label: str
    path: Path


@dataclass(frozen=True)
class LeftOut:
    """A file of the snapshot that is not trained on, and why in words."""

    relpath: str
    cause: str


@dataclass(frozen=True)
class Dataset:
    """A snapshot laid out for one run: `root` holds `train/<class>/` and `val/<class>/`.

    `report_files` tell people and programs what preflight found.
    """

    root: Path
    snapshot_id: str
    snapshot_md5: str
    classes: tuple[str, ...]
    train: tuple[Picture, ...]
    val: tuple[Picture, ...]
    left_out: tuple[LeftOut, ...]
    report: PreflightReport
    report_files: tuple[Path, ...]


def prepare(
    s3: S3Access,
    *,
    project: str,
    train_bucket: str,
    airlock_bucket: str,
    dvc_bucket: str,
    snapshot_id: str,
    cache_dir: Path,
    cache_limit_bytes: int | None,
    packs: bool,
    work_dir: Path,
    val_share: float,
    min_images_per_class: int,
    max_bad_share: float,
) -> Dataset:
    """Fetch the snapshot, check it, split it, and lay it out in a fresh directory below `work_dir`.

    Raises `Refused`, with preflight's report, for a dataset that cannot be trained on, and other `DataError`s for an
    unknown snapshot and a damaged object.
    """
    start = time.monotonic()
    catalogue = Catalogue(s3, project, airlock_bucket, dvc_bucket)
    record = catalogue.record(snapshot_id)
    content = _Content(record, catalogue.entries(record.md5), catalogue.sizes(snapshot_id))
    cache = Cache(cache_dir, cache_limit_bytes, project if packs else None)
    fetched = cache.fetch(s3, dvc_bucket, content.sizes)
    with examinations.opened(cache_dir / "pictures.db") as known:
        decoded = preflight.decode(content.candidates(), cache.path, known)
    limits = Limits(min_images_per_class, max_bad_share)
    findings = _found(content, decoded, val_share, limits, report_files.parent_of(catalogue, record))
    files = report_files.write(work_dir / "preflight", findings, cache.path, decoded.good)
    contact_sheet.publish(catalogue, record.id, files)
    preflight.log_left_out(findings.report)
    preflight.require(findings.problems, files)
    dataset = _laid_out(findings, cache, decoded.good, tree.fresh(work_dir), files)
    log.info(
        "dataset bucket=%s snapshot=%s train=%d val=%d left_out=%d fetched=%d seconds=%.1f",
        train_bucket,
        snapshot_id,
        len(dataset.train),
        len(dataset.val),
        len(dataset.left_out),
        fetched.objects,
        time.monotonic() - start,
    )
    return dataset


@dataclass(frozen=True)
class _Content:
    """What a snapshot holds; `sizes` are bytes by md5."""

    record: Record
    entries: list[Entry]
    sizes: dict[str, int]

    def placed(self) -> Iterator[tuple[Entry, Place]]:
        """The files that are in a class."""
        for entry in self.entries:
            where = place(entry.relpath, self.record.layout)
            if isinstance(where, Place):
                yield entry, where

    def candidates(self) -> set[str]:
        """The contents that may be pictures."""
        return {entry.md5 for entry, _ in self.placed()}


def _found(content: _Content, decoded: Decoded, val_share: float, limits: Limits, parent: Parent) -> Findings:
    good, causes = decoded.good, decoded.causes
    labels = {entry.relpath: where.label for entry, where in content.placed()}
    bad = [Excluded(e.relpath, causes[e.md5]) for e in content.entries if e.relpath in labels and e.md5 in causes]
    usable = (entry for entry in content.entries if entry.md5 not in causes or entry.relpath not in labels)
    division = split.divide(usable, content.record.layout, val_share)
    report = preflight.inspect(division, bad)
    problems = preflight.problems(report, labels.values(), limits)
    problems += preflight.golden_problems((content.sizes[each.md5], good[each.md5]) for each in division.val)
    return Findings(
        record=content.record,
        entries=content.entries,
        labels=sorted(set(labels.values())),
        division=division,
        bad=bad,
        report=report,
        problems=problems,
        limits=limits,
        parent=parent,
    )


def _laid_out(
    findings: Findings, cache: Cache, good: Mapping[str, Examined], root: Path, files: tuple[Path, ...]
) -> Dataset:
    """Make the tree of links at `root`."""
    division = findings.division
    tree.make_classes(root, findings.labels)

    def linked(side: Split, samples: Iterable[Sample]) -> tuple[Picture, ...]:
        return tuple(
            Picture(md5, relpath, label, tree.place(root, side, label, cache.path(md5), md5, good[md5].format))
            for md5, relpath, label in samples
        )

    left_out = [*findings.bad, *division.conflicts, *division.duplicates, *division.misplaced]
    return Dataset(
        root=root,
        snapshot_id=findings.record.id,
        snapshot_md5=findings.record.md5,
        classes=tuple(findings.labels),
        train=linked("train", division.train),
        val=linked("val", division.val),
        left_out=tuple(LeftOut(each.relpath, each.cause) for each in sorted(left_out)),
        report=findings.report,
        report_files=files,
    )
