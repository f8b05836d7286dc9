"""The command `sweep`: removes old snapshots, contents that no snapshot has, and what a host has not used for long.

Without `delete` it only reports. Which snapshots are old, who calls it knows; contents are marked from the records.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import obstore

from trainer import contents, eviction, fences, s3
from trainer.catalogue import (
    DATA_REMOTE,
    SNAPSHOT_ID,
    Catalogue,
    claim_key,
    pointer_key,
    record_key,
    sheet_key,
    sizes_key,
)
from trainer.directory import content_path
from trainer.errors import DataError, UnavailableError
from trainer.fences import MARGIN_SECONDS, Fence
from trainer.s3 import S3Access

DELETED_AT_ONCE = 1000
"""Keys of one request, S3's limit."""
DAY_SECONDS = 24 * 3600.0
RECORD = re.compile(rf"snapshots/([a-z][a-z0-9-]*)/({SNAPSHOT_ID.pattern})\.json")
CONTENT = re.compile(r"files/md5/([0-9a-f]{2})/([0-9a-f]{30}(?:\.dir)?)")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SweepResult:
    """The command's result object (docs/contracts.md); with `deleted` off, what could be removed."""

    snapshots: int
    objects: int
    bytes: int
    cache_objects: int
    cache_bytes: int
    deleted: bool


@dataclass(frozen=True)
class Remote:
    """The buckets of all projects' snapshots."""

    access: S3Access
    airlock_bucket: str
    dvc_bucket: str

    def catalogue(self, project: str) -> Catalogue:
        """One project's."""
        return Catalogue(self.access, project, self.airlock_bucket, self.dvc_bucket)


@dataclass
class Marked:
    """What stays: directory objects and contents, by md5."""

    names: set[str] = field(default_factory=set)
    md5s: set[bytes] = field(default_factory=set)

    def add(self, catalogue: Catalogue, name: str) -> None:
        """A directory object and all that it names."""
        if name not in self.names:
            self.md5s.update(bytes.fromhex(entry.md5) for entry in catalogue.entries(name))
            self.names.add(name)

    def has(self, md5: str) -> bool:
        """Whether it stays."""
        return md5 in self.names if md5.endswith(".dir") else bytes.fromhex(md5) in self.md5s


def sweep(remote: Remote, cache: Path, old: Collection[str], keep_days: float, *, delete: bool) -> SweepResult:
    """Remove, or only count, the `old` snapshots (`<project>/<id>`), and contents older than that which nothing names.

    Raises `DataError` where a snapshot that stays cannot be read: what it names is not known then, and nothing goes.
    """
    before = time.time() - keep_days * DAY_SECONDS
    fence = fences.begin(remote.access, remote.airlock_bucket) if delete else None
    try:
        gone = [each for each in _snapshots(remote) if "/".join(each) in old]
        found = list(_unnamed(remote, _marked(remote, gone), before))
        if fence is not None:
            _remove(remote, gone, [key for key, _ in found], fence)
    finally:
        if fence is not None:
            fences.end(remote.access, remote.airlock_bucket, fence)
    with contents.opened(cache) as known:
        cache_objects, cache_bytes = eviction.unused(cache, before, known, delete=delete)
    result = SweepResult(len(gone), len(found), sum(size for _, size in found), cache_objects, cache_bytes, delete)
    log.info("sweep %s", result)
    return result


def _snapshots(remote: Remote) -> Iterator[tuple[str, str]]:
    """Project and id of every snapshot."""
    with s3.translated(f"listing {remote.airlock_bucket}/snapshots"):
        for page in obstore.list(s3.store(remote.access, remote.airlock_bucket), prefix="snapshots"):
            for each in page:
                if match := RECORD.fullmatch(each["path"]):
                    yield match[1], match[2]


def _marked(remote: Remote, gone: Collection[tuple[str, str]]) -> Marked:
    """What the snapshots name that stay, and those that are being written."""
    marked = Marked()
    # Claims first: one that is recorded meanwhile is in the listing that follows.
    claimed = list(_claimed(remote))
    for project, snapshot_id in _snapshots(remote):
        if (project, snapshot_id) not in gone:
            catalogue = remote.catalogue(project)
            marked.add(catalogue, catalogue.record(snapshot_id).md5)
    for project, name in claimed:
        try:
            marked.add(remote.catalogue(project), name)
        except DataError:
            # Not written yet: that snapshot has still to look at the fence, and will begin anew.
            log.info("claimed project=%s directory=%s: not there", project, name)
    return marked


def _claimed(remote: Remote) -> Iterator[tuple[str, str]]:
    """Project and directory object of the snapshots that were last begun."""
    folder = claim_key("").rpartition("/")[0]
    with s3.translated(f"reading {remote.airlock_bucket}/{folder}"):
        store = s3.store(remote.access, remote.airlock_bucket)
        for page in obstore.list(store, prefix=folder):
            for each in page:
                try:
                    claim = json.loads(bytes(obstore.get(store, each["path"]).bytes()))
                    yield each["path"].rpartition("/")[2].removesuffix(".json"), str(claim["md5"])
                except (KeyError, TypeError, ValueError):
                    continue  # nobody's: the next snapshot replaces it


def _unnamed(remote: Remote, marked: Marked, before: float) -> Iterator[tuple[str, int]]:
    """Key and bytes of the objects that nothing names, and that have been there since before that time."""
    with s3.translated(f"listing {remote.dvc_bucket}/{DATA_REMOTE}"):
        store = s3.store(remote.access, remote.dvc_bucket, DATA_REMOTE)
        for page in obstore.list(store, prefix="files/md5"):
            for each in page:
                match = CONTENT.fullmatch(each["path"])
                if match and each["last_modified"].timestamp() < before and not marked.has(match[1] + match[2]):
                    yield f"{DATA_REMOTE}/{content_path(match[1] + match[2])}", each["size"]


def _remove(remote: Remote, gone: Collection[tuple[str, str]], keys: list[str], fence: Fence) -> None:
    """The records first: without its record a snapshot is not there, whatever is left of it."""
    client = s3.client(remote.access)
    _delete(client, remote.airlock_bucket, [record_key(*each) for each in gone], fence)
    beside = [key(*each) for each in gone for key in (pointer_key, sizes_key, sheet_key)]
    _delete(client, remote.airlock_bucket, beside, fence)
    # A directory object before its contents: DVC takes these for granted where it finds it.
    _delete(client, remote.dvc_bucket, sorted(keys, key=lambda key: not key.endswith(".dir")), fence)


def _delete(client: Any, bucket: str, keys: list[str], fence: Fence) -> None:
    rest = iter(keys)
    while some := list(islice(rest, DELETED_AT_ONCE)):
        if time.time() > fence.until - MARGIN_SECONDS:
            raise UnavailableError("there is more to remove than an hour allows. The next run goes on with it.")
        with s3.translated(f"deleting objects of {bucket}"):
            wanted = {"Objects": [{"Key": key} for key in some], "Quiet": True}
            answer = client.delete_objects(Bucket=bucket, Delete=wanted)
        if refused := answer.get("Errors"):
            first = refused[0]
            raise UnavailableError(
                f"S3: {len(refused)} objects of {bucket} were not deleted, {first['Key']} first ({first['Code']}). "
                "Check the rights of the trainer's key; the next run goes on."
            )
