"""The snapshot catalogue: records in the bucket `airlock`, directory objects in the DVC remote."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import obstore
from pydantic import BaseModel, ConfigDict, ValidationError

from trainer import directory, keys, parallel, s3
from trainer.directory import Entry
from trainer.errors import DataError
from trainer.layout import Layout
from trainer.s3 import S3Access

Parsed = TypeVar("Parsed")

SNAPSHOT_ID = re.compile(r"\d{8}T\d{9}Z-[0-9a-f]{8}")

DATA_REMOTE = "data"
"""Prefix of the DVC remote for datasets in the bucket `dvc`."""


class ClassCount(BaseModel):
    """How many files a class has, and their bytes."""

    model_config = ConfigDict(frozen=True)

    count: int
    bytes: int


class Diff(BaseModel):
    """Files added, removed, and of other content, against the parent."""

    model_config = ConfigDict(frozen=True)

    added: int
    removed: int
    changed: int


class Record(BaseModel):
    """The catalogue's record of one snapshot (docs/contracts.md)."""

    model_config = ConfigDict(frozen=True)

    id: str
    project: str
    bucket: str
    created_at: str
    md5: str
    listing_digest: str
    count: int
    bytes: int
    classes: dict[str, ClassCount]
    layout: Layout
    parent: str | None
    diff: Diff
    triggered_by: str
    seconds: dict[str, float]


@dataclass(frozen=True)
class Catalogue:
    """Reads the snapshots of one project."""

    access: S3Access
    project: str
    airlock_bucket: str
    dvc_bucket: str

    def ids(self) -> list[str]:
        """Every snapshot's id, oldest first."""
        return sorted(name.removesuffix(".json") for name in self._names() if name.endswith(".json"))

    def has(self, snapshot_id: str) -> bool:
        """Whether a snapshot's record is there."""
        return self._read(self.airlock_bucket, record_key(self.project, snapshot_id)) is not None

    def newest(self) -> Record | None:
        """The newest snapshot's record; None where there is none yet."""
        ids = self.ids()
        return self.record(ids[-1]) if ids else None

    def record(self, snapshot_id: str) -> Record:
        """The record of a snapshot. Raises `DataError` with the nearest ids where it is unknown."""
        # Typed by a person perhaps: anything else than an id is no part of a key.
        known = SNAPSHOT_ID.fullmatch(snapshot_id)
        content = self._read(self.airlock_bucket, record_key(self.project, snapshot_id)) if known else None
        if content is None:
            raise DataError(self._unknown(snapshot_id))
        return self._parsed(Record.model_validate_json, content, f"the record of the snapshot {snapshot_id}")

    def directory(self, md5: str) -> bytes:
        """A directory object `<md5>.dir`, verified against its name."""
        key = f"{DATA_REMOTE}/{directory.content_path(md5)}"
        content = self._read(self.dvc_bucket, key)
        if content is None:
            raise DataError(
                f"{self.dvc_bucket}/{key} is missing: the snapshot cannot be read. Restore it or take another."
            )
        if directory.name_of(content) != md5:
            raise DataError(f"{self.dvc_bucket}/{key} is damaged: its bytes are not those of its md5. Restore it.")
        return content

    def entries(self, md5: str) -> list[Entry]:
        """The entries of a directory object."""
        entries = self._parsed(directory.decode, self.directory(md5), f"the directory object {md5}")
        # Made by others too: `dvc push` writes here.
        keys.refuse(md5, keys.impossible([entry.relpath for entry in entries]))
        return entries

    def sizes(self, snapshot_id: str) -> dict[str, int]:
        """Bytes of every content of a snapshot, by md5."""
        key = sizes_key(self.project, snapshot_id)
        content = self._read(self.airlock_bucket, key)
        if content is None:
            raise DataError(f"{self.airlock_bucket}/{key} is missing. Restore it or take another snapshot.")
        sizes: dict[str, int] = self._parsed(json.loads, content, key)
        return sizes

    def _names(self) -> list[str]:
        bucket = s3.store(self.access, self.airlock_bucket)
        with s3.translated(f"listing {self.airlock_bucket}/snapshots/{self.project}"):
            objects = parallel.aside(lambda: obstore.list(bucket, prefix=f"snapshots/{self.project}").collect())
            return [each["path"].rpartition("/")[2] for each in objects]

    def _read(self, bucket: str, key: str) -> bytes | None:
        with s3.translated(f"reading {bucket}/{key}"):
            try:
                store = s3.store(self.access, bucket)
                return parallel.aside(lambda: obstore.get(store, key).bytes().to_bytes())
            except FileNotFoundError as missing:
                if "NoSuchBucket" in str(missing):
                    raise
                return None

    def _unknown(self, snapshot_id: str) -> str:
        ids = self.ids()
        if not ids:
            return f"{self.project} has no snapshot yet, so not {snapshot_id!r} either. Put pictures into its bucket."
        nearest = difflib.get_close_matches(snapshot_id, ids, n=3, cutoff=0.0)
        return f"{self.project} has no snapshot {snapshot_id!r}. The nearest are: {', '.join(nearest)}."

    def _parsed(self, parse: Callable[[bytes], Parsed], content: bytes, what: str) -> Parsed:
        try:
            return parse(content)
        except (ValidationError, ValueError) as cause:
            raise DataError(f"{what} is malformed: {cause}. Restore it or take another snapshot.") from cause


def record_key(project: str, snapshot_id: str) -> str:
    """Where a snapshot's record lies in the bucket `airlock`."""
    return f"snapshots/{project}/{snapshot_id}.json"


def pointer_key(project: str, snapshot_id: str) -> str:
    """Where a snapshot's `.dvc` file lies."""
    return f"snapshots/{project}/{snapshot_id}.dvc"


def sizes_key(project: str, snapshot_id: str) -> str:
    """Where the sizes of a snapshot's contents lie."""
    return f"snapshots/{project}/{snapshot_id}.sizes"


def sheet_key(project: str, snapshot_id: str) -> str:
    """Where the contact sheet of a snapshot lies that was trained on."""
    return f"snapshots/{project}/{snapshot_id}.jpg"


def claim_key(project: str) -> str:
    """Where it says which snapshot is being written."""
    return f"snapshots/_claims/{project}.json"


def hashes_key(project: str) -> str:
    """Where the md5s of contents are remembered whose ETag is none."""
    return f"snapshots/_hashes/{project}.json"
