"""The command `snapshot`: pins what a bucket holds now as an immutable dataset, from its listing alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from trainer import directory, hashing, listing, pinning, recording
from trainer.catalogue import Catalogue, Record, hashes_key
from trainer.errors import DataError
from trainer.hashing import Changed
from trainer.listing import Row
from trainer.recording import Taken
from trainer.s3 import S3Access

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SnapshotResult:
    """The command's result object (docs/contracts.md)."""

    status: Literal["created", "existing", "changed"]
    snapshot_id: str | None
    listing_digest: str
    count: int
    bytes: int
    md5: str | None
    reason: str


def take(
    access: S3Access,
    *,
    project: str,
    train_bucket: str,
    airlock_bucket: str,
    dvc_bucket: str,
    expected_digest: str,
    triggered_by: str,
) -> SnapshotResult:
    """Take a snapshot of `train_bucket`; with an `expected_digest`, only of exactly that listing.

    Killed at any line and run again it gives the same result: content first, the record last.
    Raises `DataError` for an empty bucket and for keys that no checkout can hold.
    """
    seconds: dict[str, float] = {}
    with _timed(seconds, "listing"):
        rows = listing.read(access, train_bucket)
    seen = _Seen(rows, listing.digest(rows))
    log.info("listed bucket=%s objects=%d seconds=%.1f", train_bucket, len(rows), seconds["listing"])
    if expected_digest and seen.digest != expected_digest:
        return seen.result("changed", None, f"{train_bucket} has changed since it settled: it holds {len(rows)} now")
    if not rows:
        raise DataError(f"the bucket {train_bucket} is empty: put pictures into it as <class>/<name>")
    catalogue = Catalogue(access, project, airlock_bucket, dvc_bucket)
    try:
        return _Snapshot(catalogue, train_bucket, triggered_by, seconds).of(seen)
    except Changed as changed:
        return seen.result("changed", None, f"{train_bucket}/{changed} has changed since it was listed")


@dataclass(frozen=True)
class _Seen:
    """The bucket as it was listed."""

    rows: list[Row]
    digest: str

    def result(
        self, status: Literal["created", "existing", "changed"], record: Record | None, reason: str
    ) -> SnapshotResult:
        total = sum(row.size for row in self.rows)
        snapshot_id, md5 = (record.id, record.md5) if record else (None, None)
        return SnapshotResult(status, snapshot_id, self.digest, len(self.rows), total, md5, reason)


@dataclass(frozen=True)
class _Snapshot:
    catalogue: Catalogue
    bucket: str
    triggered_by: str
    seconds: dict[str, float] = field(default_factory=dict)

    def of(self, seen: _Seen) -> SnapshotResult:
        parent = self.catalogue.newest()
        before = {entry.relpath: entry.md5 for entry in self.catalogue.entries(parent.md5)} if parent else {}
        taken = self._taken(seen, before)
        if parent and parent.md5 == taken.md5:
            return seen.result("existing", parent, f"the same content as the newest snapshot, {parent.id}")
        with _timed(self.seconds, "copying"):
            copied = self._pin(taken, pinned=set(before.values()))
        diff = recording.diff(taken.entries, before)
        record = recording.record_of(
            taken,
            recording.choose_id(self.catalogue, taken.md5, parent),
            bucket=self.bucket,
            project=self.catalogue.project,
            parent=parent,
            diff=diff,
            triggered_by=self.triggered_by,
            seconds=self.seconds,
        )
        if not recording.write(self.catalogue, taken, record):
            return seen.result("existing", record, f"{record.id} was written by another at the same time")
        words = f"{diff.added} added, {diff.removed} removed, {diff.changed} changed; {copied} copied"
        return seen.result("created", record, words)

    def _taken(self, seen: _Seen, before: Mapping[str, str]) -> Taken:
        access, project = self.catalogue.access, self.catalogue.project
        memory = hashing.Memory(access, self.catalogue.airlock_bucket, hashes_key(project))
        with _timed(self.seconds, "hashing"):
            entries = hashing.entries(access, self.bucket, seen.rows, before, memory)
        content = directory.encode(entries)
        return Taken(seen.rows, entries, seen.digest, content, directory.name_of(content))

    def _pin(self, taken: Taken, pinned: set[str]) -> int:
        # What the parent holds was pinned before its record was written.
        wanted = {e.md5: row for e, row in zip(taken.entries, taken.rows, strict=True) if e.md5 not in pinned}
        access, dvc_bucket = self.catalogue.access, self.catalogue.dvc_bucket
        missing = pinning.lacking(access, dvc_bucket, set(wanted)) if wanted else set()
        log.info("pinning bucket=%s new=%d to_copy=%d", self.bucket, len(wanted), len(missing))
        contents = (pinning.Content(md5, wanted[md5]) for md5 in sorted(missing))
        return pinning.copy(access, self.bucket, dvc_bucket, contents)


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    seconds[step] = round(time.monotonic() - start, 3)
