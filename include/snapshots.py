"""The catalogue of snapshots: which ones there are, and what their ids say."""

from __future__ import annotations

import difflib
import re
from datetime import UTC, datetime

from include.s3 import Bucket, client
from include.settings import Settings

SNAPSHOT_ID = re.compile(r"\d{8}T\d{9}Z-[0-9a-f]{8}")
_EXAMPLE = "20261123T171409123Z-c71581aa"
_NEAREST = 3


class UnknownSnapshot(Exception):
    """The snapshot that a run asks for is not in the catalogue, or there is none at all."""


def taken_at(snapshot_id: str) -> datetime:
    """When a snapshot was taken, UTC, as its id says. Raises ValueError where it is no snapshot id."""
    try:
        if SNAPSHOT_ID.fullmatch(snapshot_id):
            # Milliseconds are read as the beginning of microseconds.
            return datetime.strptime(snapshot_id.partition("Z")[0], "%Y%m%dT%H%M%S%f").replace(tzinfo=UTC)
    except ValueError:
        pass  # the right shape, but no such day or hour
    raise ValueError(f"{snapshot_id!r} is not a snapshot id; one looks like {_EXAMPLE}")


def snapshot_ids(settings: Settings, project: str) -> list[str]:
    """The ids of a project's snapshots, oldest first, by the names of their records alone. Raises StorageError."""
    records = Bucket(client(settings, settings.identity("airflow")), settings.records_bucket)
    names = [key.rpartition("/")[2] for key in records.keys(f"snapshots/{project}/")]
    ids = [name.removesuffix(".json") for name in names if name.endswith(".json")]
    return sorted(found for found in ids if SNAPSHOT_ID.fullmatch(found))


def choose(known: list[str], wanted: str | None, project: str) -> str:
    """The wanted snapshot, or the newest where none is wanted. Raises UnknownSnapshot, naming the nearest ids."""
    if not known:
        raise UnknownSnapshot(f"project {project} has no snapshot yet: put pictures into its bucket and wait for one")
    if not wanted:
        return known[-1]
    if wanted in known:
        return wanted
    nearest = difflib.get_close_matches(wanted, known, n=_NEAREST, cutoff=0.0)
    raise UnknownSnapshot(
        f"project {project} has no snapshot {wanted!r}; the nearest are {', '.join(nearest)}. "
        "Trigger the run again with one of them as its partition key, or with none for the newest"
    )
