"""Writes a snapshot into the catalogue, so that it is there as a whole or not at all."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from botocore.exceptions import ClientError

from trainer import claims, directory, layout, parallel, s3
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
from trainer.claims import Claim
from trainer.layout import Layout
from trainer.listing import Row

TIME_FORMAT = "%Y%m%dT%H%M%S%f"
DIGITS_OF_MD5 = 8


@dataclass(frozen=True)
class Taken:
    """What a snapshot holds: the rows of the listing and, in the same order, their md5s."""

    rows: list[Row]
    md5s: list[str]
    listing_digest: str
    content: bytes
    md5: str


@dataclass(frozen=True)
class Contents:
    """What a snapshot's rows come to, put together while its contents are copied."""

    sizes: bytes
    """JSON of the bytes of each content by md5."""
    bytes: int
    """Of all files."""
    layout: Layout
    classes: dict[str, ClassCount]


def contents_of(taken: Taken) -> Contents:
    """Sizes and classes of what was taken."""
    shape = layout.layout_of(row.key for row in taken.rows)
    total = sum(row.size for row in taken.rows)
    return Contents(_sizes(taken), total, shape, _classes(taken.rows, shape))


def record_of(
    taken: Taken,
    contents: Contents,
    claim: Claim,
    *,
    bucket: str,
    project: str,
    diff: Diff,
    triggered_by: str,
    seconds: dict[str, float],
) -> Record:
    """The catalogue's record of what was taken."""
    created_at = _time_of(claim.id).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Record(
        id=claim.id,
        project=project,
        bucket=bucket,
        created_at=created_at,
        md5=taken.md5,
        listing_digest=taken.listing_digest,
        count=len(taken.rows),
        bytes=contents.bytes,
        classes=contents.classes,
        layout=contents.layout,
        parent=claim.parent,
        diff=diff,
        triggered_by=triggered_by,
        seconds=seconds,
    )


def new_id(md5: str, parent: str | None) -> str:
    """An id for content that is taken now."""
    now = datetime.now(UTC)
    if parent:
        # Ids are in order of time, also where this host's clock is behind.
        now = max(now, _time_of(parent) + timedelta(milliseconds=1))
    return f"{now:%Y%m%dT%H%M%S}{now.microsecond // 1000:03d}Z-{md5[:DIGITS_OF_MD5]}"


def write_directory(catalogue: Catalogue, taken: Taken) -> None:
    """Write the directory object, where DVC looks for it.

    After its contents: where DVC finds a directory object it takes them for granted.
    """
    key = f"{DATA_REMOTE}/{directory.content_path(taken.md5)}"
    with s3.translated(f"writing {catalogue.dvc_bucket}/{key}"):
        s3.client(catalogue.access).put_object(Bucket=catalogue.dvc_bucket, Key=key, Body=taken.content)


def write_files(catalogue: Catalogue, claim: Claim, taken: Taken, contents: Contents) -> None:
    """Write all of a snapshot but its record: directory object, `.dvc` file and sizes, beside each other."""
    project, bucket, client = catalogue.project, catalogue.airlock_bucket, s3.client(catalogue.access)
    pointer = directory.pointer(taken.md5, project).encode()

    def put(key: str, body: bytes) -> None:
        client.put_object(Bucket=bucket, Key=key, Body=body)

    writes = (
        partial(write_directory, catalogue, taken),
        partial(put, pointer_key(project, claim.id), pointer),
        partial(put, sizes_key(project, claim.id), contents.sizes),
    )
    with s3.translated(f"writing the snapshot {claim.id}"):
        for _ in parallel.unordered(lambda write: write(), writes, len(writes)):
            pass


def write_record(catalogue: Catalogue, claim: Claim, record: Record) -> bool:
    """Write the record, with which a snapshot is there; False where another wrote this snapshot.

    Raises `claims.Overtaken` where the claim no longer holds.
    """
    client = s3.client(catalogue.access)
    key = record_key(catalogue.project, claim.id)
    with s3.translated(f"writing the snapshot {claim.id}"):
        try:
            claims.require(catalogue, claim)
        except claims.Overtaken:
            forget(catalogue, claim)
            raise
        try:
            body = record.model_dump_json(indent=1).encode()
            client.put_object(Bucket=catalogue.airlock_bucket, Key=key, Body=body, IfNoneMatch="*")
        except ClientError as failure:
            if s3.error_code(failure) not in claims.REFUSED:
                raise
            return False
    return True


def forget(catalogue: Catalogue, claim: Claim) -> None:
    """Delete what was written beside a record that never was."""
    if catalogue.has(claim.id):
        return
    client = s3.client(catalogue.access)
    with s3.translated(f"deleting what was begun of the snapshot {claim.id}"):
        for key in (pointer_key(catalogue.project, claim.id), sizes_key(catalogue.project, claim.id)):
            client.delete_object(Bucket=catalogue.airlock_bucket, Key=key)


def _time_of(snapshot_id: str) -> datetime:
    return datetime.strptime(snapshot_id.partition("Z-")[0], TIME_FORMAT).replace(tzinfo=UTC)


def _sizes(taken: Taken) -> bytes:
    # Put together by hand: it has a million plain entries.
    sizes = dict(zip(taken.md5s, (row.size for row in taken.rows), strict=True))
    return ("{" + ",".join([f'"{md5}":{size}' for md5, size in sizes.items()]) + "}").encode()


def _classes(rows: list[Row], shape: Layout) -> dict[str, ClassCount]:
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        place = layout.place(row.key, shape)
        if isinstance(place, layout.Place):
            counts[place.label][0] += 1
            counts[place.label][1] += row.size
    return {label: ClassCount(count=count, bytes=size) for label, (count, size) in sorted(counts.items())}
