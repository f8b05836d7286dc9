"""What a person wants to see of a project at a glance: what serves, the releases over time, the newest snapshots."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from include.releases import HistoryEntry, Record, Releases
from include.s3 import Bucket

SNAPSHOTS_SHOWN = 8


class Diff(BaseModel):
    """What a snapshot changed against its parent, in pictures."""

    model_config = ConfigDict(frozen=True)

    added: int
    removed: int
    changed: int


def sheet_key(project: str, snapshot_id: str) -> str:
    """Where a snapshot's contact sheet lies, once it was trained on."""
    return f"snapshots/{project}/{snapshot_id}.jpg"


class SnapshotSummary(BaseModel):
    """A snapshot's record, as far as it is shown (docs/contracts.md)."""

    model_config = ConfigDict(frozen=True)

    id: str
    created_at: datetime
    count: int
    bytes: int
    classes: dict[str, object]
    diff: Diff | None = None


@dataclass(frozen=True)
class Promotion:
    """A release that took over, with the accuracy its training measured (None: not recorded)."""

    record: Record
    at: datetime
    reason: str

    @property
    def accuracy(self) -> float | None:
        """Of 1, on the validation pictures of its own snapshot."""
        return self.record.provenance.accuracy if self.record.provenance is not None else None


@dataclass(frozen=True)
class Overview:
    """One project."""

    project: str
    promotions: tuple[Promotion, ...]
    serving: Promotion | None
    last: HistoryEntry | None
    trial: str | None
    snapshots: tuple[SnapshotSummary, ...]


def overview(project: str, releases: Releases, records: Bucket, snapshot_ids: Iterable[str]) -> Overview:
    """The project as the records have it now. Raises StorageError, and ReleaseError for records that cannot be read."""
    state, _ = releases.state(project)
    entries = [entry for entry in state.history if entry.event == "promoted"]
    promoted = {name: releases.record(project, name) for name in {entry.release_id for entry in entries}}
    promotions = tuple(Promotion(promoted[entry.release_id], entry.at, entry.reason) for entry in reversed(entries))
    serving = state.serving.release_id if state.serving is not None else None
    newest = sorted(snapshot_ids, reverse=True)[:SNAPSHOTS_SHOWN]
    found = [records.read(f"snapshots/{project}/{snapshot_id}.json") for snapshot_id in newest]
    return Overview(
        project=project,
        promotions=promotions,
        serving=next((one for one in reversed(promotions) if one.record.release_id == serving), None),
        last=state.history[0] if state.history else None,
        trial=state.candidate.release_id if state.candidate is not None else None,
        snapshots=tuple(SnapshotSummary.model_validate_json(one.body) for one in found if one is not None),
    )
