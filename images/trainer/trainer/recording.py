"""Writes a snapshot into the catalogue, so that it is there as a whole or not at all."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from botocore.exceptions import ClientError

from trainer import directory, layout, s3
from trainer.catalogue import (
    DATA_REMOTE,
    Catalogue,
    ClassCount,
    Diff,
    Record,
    pointer_key,
    record_key,
    sizes_key,
)
from trainer.directory import Entry
from trainer.errors import UnavailableError
from trainer.listing import Row

TIME_FORMAT = "%Y%m%dT%H%M%S%f"


@dataclass(frozen=True)
class Taken:
    """What a snapshot holds: the rows of the listing and, in the same order, their entries."""

    rows: list[Row]
    entries: list[Entry]
    listing_digest: str
    content: bytes
    md5: str

    @property
    def bytes(self) -> int:
        """Bytes of all its files."""
        return sum(row.size for row in self.rows)


def record_of(
    taken: Taken, snapshot_id: str, *, bucket: str, project: str, parent: Record | None, diff: Diff,
    triggered_by: str, seconds: dict[str, float],
) -> Record:  # fmt: skip
    """The catalogue's record of what was taken."""
    shape = layout.layout_of(row.key for row in taken.rows)
    created_at = _time_of(snapshot_id).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Record(
        id=snapshot_id,
        project=project,
        bucket=bucket,
        created_at=created_at,
        md5=taken.md5,
        listing_digest=taken.listing_digest,
        count=len(taken.entries),
        bytes=taken.bytes,
        classes=_classes(taken.rows, shape),
        layout=shape,
        parent=parent.id if parent else None,
        diff=diff,
        triggered_by=triggered_by,
        seconds=seconds,
    )


def choose_id(catalogue: Catalogue, md5: str, parent: Record | None) -> str:
    """The id for new content: that of an unfinished snapshot of it, which a kill left behind, else a new one."""
    unfinished = [
        each for each in catalogue.unfinished() if each.endswith(md5[:8]) and (not parent or each > parent.id)
    ]
    if unfinished:
        return unfinished[-1]
    now = datetime.now(UTC)
    if parent:
        # Ids are in order of time, also where this host's clock is behind.
        now = max(now, _time_of(parent.id) + timedelta(milliseconds=1))
    return f"{now:%Y%m%dT%H%M%S}{now.microsecond // 1000:03d}Z-{md5[:8]}"


def write(catalogue: Catalogue, taken: Taken, record: Record) -> bool:
    """Directory object, `.dvc` file and sizes first, the record last; False where another wrote this snapshot."""
    client = s3.client(catalogue.access)
    project, bucket = catalogue.project, catalogue.airlock_bucket
    with s3.translated(f"writing the snapshot {record.id}"):
        key = f"{DATA_REMOTE}/{directory.content_path(taken.md5)}"
        client.put_object(Bucket=catalogue.dvc_bucket, Key=key, Body=taken.content)
        pointer = directory.pointer(taken.md5, project).encode()
        client.put_object(Bucket=bucket, Key=pointer_key(project, record.id), Body=pointer)
        client.put_object(Bucket=bucket, Key=sizes_key(project, record.id), Body=_sizes(taken))
        try:
            body = record.model_dump_json(indent=1).encode()
            client.put_object(Bucket=bucket, Key=record_key(project, record.id), Body=body, IfNoneMatch="*")
        except ClientError as failure:
            if s3.error_code(failure) not in {"PreconditionFailed", "ConditionalRequestConflict"}:
                raise
            if catalogue.record(record.id).md5 != taken.md5:
                raise UnavailableError(f"the snapshot id {record.id} is another content's. Try again.") from failure
            return False
    return True


def diff(entries: list[Entry], before: dict[str, str]) -> Diff:
    """What is new, gone and changed against the files `before`: md5 by path."""
    known = [entry for entry in entries if entry.relpath in before]
    changed = sum(before[entry.relpath] != entry.md5 for entry in known)
    return Diff(added=len(entries) - len(known), removed=len(before) - len(known), changed=changed)


def _time_of(snapshot_id: str) -> datetime:
    return datetime.strptime(snapshot_id.partition("Z-")[0], TIME_FORMAT).replace(tzinfo=UTC)


def _classes(rows: list[Row], shape: layout.Layout) -> dict[str, ClassCount]:
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        place = layout.place(row.key, shape)
        if isinstance(place, layout.Place):
            counts[place.label][0] += 1
            counts[place.label][1] += row.size
    return {label: ClassCount(count=count, bytes=size) for label, (count, size) in sorted(counts.items())}


def _sizes(taken: Taken) -> bytes:
    sizes = {entry.md5: row.size for entry, row in zip(taken.entries, taken.rows, strict=True)}
    return json.dumps(sizes, sort_keys=True, separators=(",", ":")).encode()
