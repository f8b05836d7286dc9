"""Writes what preflight found: `report.json` for programs, `report.html` and a contact sheet for people."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from trainer import contact_sheet, dataset_page, dataset_report, memory, parallel
from trainer.catalogue import Catalogue, Record
from trainer.dataset_report import Findings, Parent
from trainer.errors import DataError
from trainer.pictures import Examined
from trainer.thumbnails import Thumbnail, thumbnail

JSON = "report.json"
PAGE = "report.html"

log = logging.getLogger(__name__)


def parent_of(catalogue: Catalogue, record: Record) -> Parent:
    """The contents of the snapshot before. One that cannot be read is said in the report, and stops nothing."""
    if record.parent is None:
        return Parent(None, "a sample of all: this is the first snapshot")
    try:
        entries = catalogue.entries(catalogue.record(record.parent).md5)
    except DataError as cause:
        log.warning("report.parent_unreadable snapshot=%s parent=%s cause=%s", record.id, record.parent, cause)
        return Parent(None, f"a sample of all, since what is new is not known: {str(cause).removesuffix('.')}")
    return Parent(frozenset(entry.md5 for entry in entries), f"new against the snapshot {record.parent}")


def write(
    folder: Path, findings: Findings, path: Callable[[str], Path], good: Mapping[str, Examined]
) -> tuple[Path, ...]:
    """Write the files into `folder`; `path` says where a content lies, `good` are those that can be decoded.

    Nothing is written where that fails: a page for people is no reason to lose a training.
    """
    start = time.monotonic()
    try:
        report = dataset_report.build(findings)
        folder.mkdir(parents=True, exist_ok=True)
        thumbnails = _thumbnails(dataset_page.pictured(report), path, good)
        files = {JSON: dataset_report.as_json(report), PAGE: dataset_page.draw(report, thumbnails)}
        for name, text in files.items():
            # A name may hold what UTF-8 cannot.
            (folder / name).write_text(text, encoding="utf-8", errors="backslashreplace")
        shown = [thumbnails[each.md5] for each in report.contact_sheet.shown if each.md5 in thumbnails]
        (folder / contact_sheet.NAME).write_bytes(contact_sheet.draw(shown))
    except Exception:
        log.warning("report.failed snapshot=%s", findings.record.id, exc_info=True)
        return ()
    log.info("report snapshot=%s seconds=%.1f", report.snapshot.id, time.monotonic() - start)
    return (*(folder / name for name in files), folder / contact_sheet.NAME)


def _thumbnails(md5s: Iterable[str], path: Callable[[str], Path], good: Mapping[str, Examined]) -> dict[str, Thumbnail]:
    room = memory.for_pictures()
    drawn = parallel.unordered(
        lambda md5: (md5, thumbnail(path(md5), good[md5], room)), md5s, len(os.sched_getaffinity(0))
    )
    return {md5: small for md5, small in drawn if small}
