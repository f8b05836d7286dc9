"""What a person has told a project's watch: take the snapshot now, or hold it."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from include.s3 import Bucket

# A "start now" that nothing was there for must not hurry an upload of another day.
LAPSES = timedelta(hours=1)


class Wanted(StrEnum):
    """The words of the form."""

    NOW = "start now"
    HOLD = "hold"
    GO_ON = "go on"


class Order(BaseModel):
    """An order as it lies in the bucket of records (docs/contracts.md)."""

    model_config = ConfigDict(frozen=True)

    wanted: Wanted
    by: str
    at: datetime
    reason: str | None = None

    def counts(self, now: datetime) -> bool:
        """Whether it still does; a hold does until it is taken back."""
        return self.wanted != Wanted.NOW or now - self.at <= LAPSES

    @property
    def in_words(self) -> str:
        """By whom, since when and why."""
        return f"by {self.by} at {self.at:%H:%M} UTC" + (f" ({self.reason})" if self.reason else "")


def key(project: str) -> str:
    """Where a project's order lies."""
    return f"watch/{project}.json"


def give(records: Bucket, project: str, order: Order) -> None:
    """Put the order in the place of a former one.

    Raises StorageError, and ObjectChanged where another person gives one at the same moment.
    """
    former = records.read(key(project))
    body = order.model_dump_json().encode()
    if order.wanted == Wanted.GO_ON:
        records.delete(key(project))
    elif former is None:
        records.create(key(project), body)
    else:
        records.replace(key(project), body, former.etag)
