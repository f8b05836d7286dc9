"""The command `snapshot`: pins what a bucket holds now as an immutable dataset, from its listing alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from trainer import claims, directory, hashing, listing, pinning, recording
from trainer.catalogue import Catalogue, Record, hashes_key
from trainer.claims import Claim, Overtaken
from trainer.errors import DataError
from trainer.hashing import Changed
from trainer.listing import Row
from trainer.recording import Taken
from trainer.s3 import S3Access

ATTEMPTS = 3
"""How often a bucket that changes meanwhile is listed, where no settled listing is asked for."""

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
    catalogue = Catalogue(access, project, airlock_bucket, dvc_bucket)
    result = _attempt(catalogue, train_bucket, expected_digest, triggered_by)
    for _ in range(ATTEMPTS - 1):
        if result.status != "changed" or expected_digest:
            break
        log.info("listed again: %s", result.reason)
        result = _attempt(catalogue, train_bucket, expected_digest, triggered_by)
    return result


def _attempt(catalogue: Catalogue, bucket: str, expected_digest: str, triggered_by: str) -> SnapshotResult:
    seconds: dict[str, float] = {}
    with _timed(seconds, "listing"):
        rows = listing.read(catalogue.access, bucket)
        seen = _Seen(rows, listing.digest(rows))
    log.info("listed bucket=%s objects=%d seconds=%.1f", bucket, len(rows), seconds["listing"])
    if expected_digest and seen.digest != expected_digest:
        return seen.result("changed", None, f"{bucket} has changed since it settled: it holds {len(rows)} objects now")
    if not rows:
        raise DataError(f"the bucket {bucket} is empty: put pictures into it as <class>/<name>")
    try:
        return _Snapshot(catalogue, bucket, triggered_by, seconds).of(seen)
    except Changed as changed:
        return seen.result("changed", None, f"{bucket}/{changed} has changed since it was listed")
    except Overtaken as newer:
        return seen.result("changed", None, f"another snapshot was taken meanwhile: {newer}")


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
        with _timed(self.seconds, "parent"):
            parent = self.catalogue.newest()
            before = self.catalogue.files(parent.md5) if parent else {}
        taken = self._taken(seen, before)
        if parent and parent.md5 == taken.md5:
            return seen.result("existing", parent, f"the same content as the newest snapshot, {parent.id}")
        diff = recording.diff(taken.files(), before)
        copied = self._pin(taken, before)
        before.clear()  # it has as many entries as the listing, and writing takes memory too
        recording.write_directory(self.catalogue, taken)
        parent_id = parent.id if parent else None
        own = Claim(recording.new_id(taken.md5, parent_id), parent_id, taken.md5)
        claim, dead = claims.stake(self.catalogue, own)
        record = recording.record_of(
            taken,
            claim,
            bucket=self.bucket,
            project=self.catalogue.project,
            diff=diff,
            triggered_by=self.triggered_by,
            seconds=self.seconds,
        )
        if not recording.write(self.catalogue, claim, taken, record):
            return seen.result("existing", record, f"{record.id} was written by another at the same time")
        if dead:
            recording.forget(self.catalogue, dead)
        words = f"{diff.added} added, {diff.removed} removed, {diff.changed} changed; {copied} copied"
        return seen.result("created", record, words)

    def _taken(self, seen: _Seen, before: dict[str, str]) -> Taken:
        access, project = self.catalogue.access, self.catalogue.project
        memory = hashing.Memory(access, self.catalogue.airlock_bucket, hashes_key(project))
        with _timed(self.seconds, "hashing"):
            md5s = hashing.md5s(access, self.bucket, seen.rows, before, memory)
        with _timed(self.seconds, "directory"):
            content = directory.encode(zip(md5s, (row.key for row in seen.rows), strict=True))
            return Taken(seen.rows, md5s, seen.digest, content, directory.name_of(content))

    def _pin(self, taken: Taken, before: dict[str, str]) -> int:
        """Copy what the remote lacks; how many contents. What the parent holds was pinned before its record."""
        access, dvc_bucket = self.catalogue.access, self.catalogue.dvc_bucket
        pinned = set(before.values())
        wanted = {md5: row for md5, row in taken.sources().items() if md5 not in pinned}
        with _timed(self.seconds, "comparing"):
            missing = pinning.lacking(access, dvc_bucket, set(wanted), held_about=len(pinned)) if wanted else set()
        log.info("pinning bucket=%s new=%d to_copy=%d", self.bucket, len(wanted), len(missing))
        with _timed(self.seconds, "copying"):
            contents = [pinning.Content(md5, wanted[md5]) for md5 in sorted(missing)]
            pinning.copy(access, self.bucket, dvc_bucket, contents)
        return len(missing)


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    seconds[step] = round(time.monotonic() - start, 3)
