"""One call that turns a snapshot into a directory that Ultralytics can train on."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from trainer import examinations, preflight, report_files, split, tree
from trainer.cache import Cache
from trainer.catalogue import Catalogue
from trainer.dataset_report import Findings
from trainer.directory import Entry
from trainer.layout import Layout, Place, Split, place
from trainer.pictures import Examined
from trainer.preflight import Limits, PreflightReport
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
    entries = catalogue.entries(record.md5)
    cache = Cache(cache_dir, cache_limit_bytes, project if packs else None)
    sizes = catalogue.sizes(snapshot_id)
    fetched = cache.fetch(s3, dvc_bucket, sizes)
    candidates = {entry.relpath: where.label for entry, where in _placed(entries, record.layout)}
    labels = sorted(set(candidates.values()))
    contents = {entry.md5 for entry in entries if entry.relpath in candidates}
    with examinations.opened(cache_dir / "pictures.db") as known:
        decoded = preflight.decode(contents, cache.path, known)
    good, causes = decoded.good, decoded.causes
    bad = [Excluded(e.relpath, causes[e.md5]) for e in entries if e.relpath in candidates and e.md5 in causes]
    usable = (entry for entry in entries if entry.md5 not in causes or entry.relpath not in candidates)
    division = split.divide(usable, record.layout, val_share)
    report = preflight.inspect(division, bad)
    limits = Limits(min_images_per_class, max_bad_share)
    problems = preflight.problems(report, labels, limits)
    problems += preflight.golden_problems((sizes[each.md5], good[each.md5]) for each in division.val)
    parent = report_files.parent_of(catalogue, record)
    findings = Findings(record, entries, labels, division, bad, problems, limits, parent)
    files = report_files.write(work_dir / "preflight", findings, cache.path, good)
    preflight.log_left_out(report)
    preflight.require(problems, files)
    root = tree.fresh(work_dir)
    tree.make_classes(root, labels)
    left_out = [*bad, *division.conflicts, *division.duplicates, *division.misplaced]
    log.info(
        "dataset bucket=%s snapshot=%s train=%d val=%d left_out=%d fetched=%d seconds=%.1f",
        train_bucket,
        snapshot_id,
        len(division.train),
        len(division.val),
        len(left_out),
        fetched.objects,
        time.monotonic() - start,
    )
    return Dataset(
        root=root,
        snapshot_id=snapshot_id,
        snapshot_md5=record.md5,
        classes=tuple(labels),
        train=_laid_out(root, "train", division.train, cache, good),
        val=_laid_out(root, "val", division.val, cache, good),
        left_out=tuple(LeftOut(each.relpath, each.cause) for each in sorted(left_out)),
        report=report,
        report_files=files,
    )


def _placed(entries: Iterable[Entry], layout: Layout) -> Iterator[tuple[Entry, Place]]:
    for entry in entries:
        where = place(entry.relpath, layout)
        if isinstance(where, Place):
            yield entry, where


def _laid_out(
    root: Path, side: Split, samples: Iterable[Sample], cache: Cache, good: Mapping[str, Examined]
) -> tuple[Picture, ...]:
    return tuple(
        Picture(md5, relpath, label, tree.place(root, side, label, cache.path(md5), md5, good[md5].format))
        for md5, relpath, label in samples
    )
