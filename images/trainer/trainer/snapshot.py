"""The command `snapshot`: pins what a bucket holds now as an immutable dataset, from its listing alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from trainer import claims, comparing, directory, fences, hashing, listing, parallel, pinning, recording, s3
from trainer.catalogue import Catalogue, Diff, Record, hashes_key
from trainer.claims import Claim, Overtaken
from trainer.errors import DataError
from trainer.fences import Fence, Swept
from trainer.hashing import Changed
from trainer.listing import Row
from trainer.pinning import Content
from trainer.recording import Contents, Taken
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
    fence = parallel.begun(lambda: fences.quiet(catalogue.access, catalogue.airlock_bucket))
    parent = parallel.begun(lambda: _Parent.read(catalogue, seconds))
    memory = hashing.Memory(catalogue.access, catalogue.airlock_bucket, hashes_key(catalogue.project))
    remembered = parallel.begun(memory.load)
    parallel.begun(lambda: s3.client(catalogue.access))  # botocore reads S3's description once, for a tenth of a second
    with _timed(seconds, "listing"):
        rows = listing.read(catalogue.access, bucket)
        seen = _Seen(rows, listing.digest(rows))
    log.info("listed bucket=%s objects=%d seconds=%.1f", bucket, len(rows), seconds["listing"])
    if expected_digest and seen.digest != expected_digest:
        return seen.result("changed", None, f"{bucket} has changed since it settled: it holds {len(rows)} objects now")
    if not rows:
        raise DataError(f"the bucket {bucket} is empty: put pictures into it as <class>/<name>")
    try:
        return _Snapshot(catalogue, bucket, triggered_by, memory, fence(), seconds).of(seen, parent(), remembered())
    except Changed as changed:
        return seen.result("changed", None, f"{bucket}/{changed} has changed since it was listed")
    except Overtaken as newer:
        return seen.result("changed", None, f"another snapshot was taken meanwhile: {newer}")
    except Swept:
        return seen.result("changed", None, "airlock__housekeeping has removed old contents meanwhile")


@dataclass(frozen=True)
class _Parent:
    """The newest snapshot, and its directory object; that of an empty dataset where there is none that can be read."""

    record: Record | None
    directory: bytes
    readable: bool

    @classmethod
    def read(cls, catalogue: Catalogue, seconds: dict[str, float]) -> _Parent:
        with _timed(seconds, "parent"):
            record = catalogue.newest()
            try:
                if record:
                    return cls(record, catalogue.directory(record.md5), readable=True)
            except DataError as cause:
                log.warning("%s Every content is looked for anew.", cause)
            return cls(record, directory.encode([]), readable=False)


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
    memory: hashing.Memory
    fence: Fence
    seconds: dict[str, float] = field(default_factory=dict)

    def of(self, seen: _Seen, parent: _Parent, remembered: dict[Row, str]) -> SnapshotResult:
        by_etag = self._encoded(seen, hashing.said_by_etags(seen.rows))
        with _timed(self.seconds, "comparing"):
            unchanged, diff = comparing.compare(by_etag.content, parent.directory)
        with _timed(self.seconds, "hashing"):
            md5s = hashing.md5s(self.bucket, seen.rows, unchanged, remembered, self.memory)
        # Mostly each ETag is the md5, and the same is not found out twice.
        taken = by_etag if md5s == by_etag.md5s else self._encoded(seen, md5s)
        if parent.record and parent.record.md5 == taken.md5 and parent.readable:
            reason = f"the same content as the newest snapshot, {parent.record.id}"
            return seen.result("existing", parent.record, reason)
        with _timed(self.seconds, "comparing"):
            if taken is not by_etag:
                unchanged, diff = comparing.compare(taken.content, parent.directory)
            missing = self._lacking(taken, unchanged, parent)
        contents = parallel.begun(lambda: recording.contents_of(taken))
        with _timed(self.seconds, "copying"):
            pinning.copy(self.catalogue.access, self.bucket, self.catalogue.dvc_bucket, missing)
        if parent.record and parent.record.md5 == taken.md5:
            recording.write_directory(self.catalogue, taken)
            reason = f"the directory object of the newest snapshot, {parent.record.id}, is there again"
            return seen.result("existing", parent.record, reason)
        return self._recorded(seen, taken, contents(), parent, diff, f"{len(missing)} copied")

    def _encoded(self, seen: _Seen, md5s: list[str]) -> Taken:
        with _timed(self.seconds, "directory"):
            content = directory.encode(zip(md5s, (row.key for row in seen.rows), strict=True))
            return Taken(seen.rows, md5s, seen.digest, content, directory.name_of(content))

    def _lacking(self, taken: Taken, unchanged: list[bool], parent: _Parent) -> list[Content]:
        """What the remote lacks. What the parent holds was pinned before its record was written."""
        files = zip(taken.md5s, taken.rows, unchanged, strict=True)
        wanted = {md5: row for md5, row, same in files if not same}
        if not wanted:
            return []
        held_about = parent.record.count if parent.record and parent.readable else 0
        missing = pinning.lacking(self.catalogue.access, self.catalogue.dvc_bucket, wanted.keys(), held_about)
        log.info("pinning bucket=%s new=%d to_copy=%d", self.bucket, len(wanted), len(missing))
        return [Content(md5, wanted[md5]) for md5 in sorted(missing)]

    def _recorded(
        self, seen: _Seen, taken: Taken, contents: Contents, parent: _Parent, diff: Diff, copied: str
    ) -> SnapshotResult:
        parent_id = parent.record.id if parent.record else None
        own = Claim(recording.new_id(taken.md5, parent_id), parent_id, taken.md5)
        with _timed(self.seconds, "writing"):
            claim, dead = claims.stake(self.catalogue, own)
            recording.write_files(self.catalogue, claim, taken, contents)
            fences.require(self.catalogue.access, self.catalogue.airlock_bucket, self.fence)
        record = recording.record_of(
            taken,
            contents,
            claim,
            bucket=self.bucket,
            project=self.catalogue.project,
            diff=diff,
            triggered_by=self.triggered_by,
            seconds=self.seconds,
        )
        if not recording.write_record(self.catalogue, claim, record):
            return seen.result("existing", record, f"{record.id} was written by another at the same time")
        if dead:
            recording.forget(self.catalogue, dead)
        words = f"{diff.added} added, {diff.removed} removed, {diff.changed} changed; {copied}"
        return seen.result("created", record, words)


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    seconds[step] = round(seconds.get(step, 0.0) + time.monotonic() - start, 3)
