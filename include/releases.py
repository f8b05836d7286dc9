"""What was released, what serves, and what is being tried: the records that every deploy step works from."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from include.s3 import ObjectChanged, Stored
from include.train_result import Provenance

HISTORY_LENGTH = 50
# However many releases fail after them, so many that once served can be put back.
PROMOTED_KEPT = 10
# A candidate whose next step has not come by then was left by a run that died.
CANDIDATE_LASTS = timedelta(minutes=30)
ALL = 100

Colour = Literal["blue", "green"]
Event = Literal["promoted", "failed", "rolled_back"]

RELEASE_ID = re.compile(r"\d{8}T\d{9}Z-v\d+")


class ReleaseError(Exception):
    """The release records do not allow what was asked."""


class TurnLost(Exception):
    """Another process took the turn at the project meanwhile: what this one wanted is not done."""


class Route(NamedTuple):
    """Where a project's traffic goes: to `colour`, and `other_share` percent of it to the other colour.

    The other colour also takes over whatever `colour` has no living container for; None: there is no other.
    """

    colour: Colour
    other_share: int | None = None


class Record(BaseModel):
    """One release: never changed once written. See docs/contracts.md."""

    model_config = ConfigDict(frozen=True)

    release_id: str
    project: str
    run_id: str
    model_version: str
    dvc_hash: str
    dvc_hash_onnx: str
    dvc_hash_golden: str
    snapshot_id: str
    snapshot_md5: str
    api_image_id: str
    created_at: datetime
    airflow_run_id: str
    previous_release_id: str | None
    reason: str
    # With it, the release can be put back without MLflow, on an empty volume too.
    provenance: Provenance | None = None

    @field_validator("release_id")
    @classmethod
    def _id_has_its_form(cls, release_id: str) -> str:
        if RELEASE_ID.fullmatch(release_id) is None:
            raise ValueError(f"{release_id!r} is not a release id")
        return release_id


class Serving(BaseModel):
    """The release that was promoted last, and where it runs."""

    model_config = ConfigDict(frozen=True)

    release_id: str
    colour: Colour
    # Of its own trial: what the next one is measured by where its containers cannot be asked.
    p99_seconds: float | None = None


class Candidate(BaseModel):
    """The release being tried: `share` percent of the traffic are to go to it, since `since`."""

    model_config = ConfigDict(frozen=True)

    release_id: str
    colour: Colour
    since: datetime
    share: int = Field(default=0, ge=0, le=ALL)
    p99_seconds: float | None = None


class Lease(BaseModel):
    """Whose turn it is to act on the project. `number` only grows: an effect of an older turn is refused."""

    model_config = ConfigDict(frozen=True)

    number: int
    holder: str | None
    until: datetime


class HistoryEntry(BaseModel):
    """How a release's deploy ended."""

    model_config = ConfigDict(frozen=True)

    release_id: str
    event: Event
    at: datetime
    reason: str


class State(BaseModel):
    """A project's desired state: everything else (containers, route, alias) follows from it."""

    model_config = ConfigDict(frozen=True)

    serving: Serving | None = None
    candidate: Candidate | None = None
    history: tuple[HistoryEntry, ...] = ()
    lease: Lease | None = None

    @property
    def route(self) -> Route | None:
        """Where traffic is to go. A proved release stands by for the other while one of the two is on trial."""
        candidate, serving = self.candidate, self.serving
        if candidate is None or candidate.share == 0:
            return Route(serving.colour) if serving is not None else None
        if serving is None:
            return Route(candidate.colour)
        return Route(candidate.colour, 0) if candidate.share == ALL else Route(serving.colour, candidate.share)

    @property
    def wanted(self) -> dict[Colour, str]:
        """The release that each colour's containers are to run; a colour that is not here has none."""
        wanted: dict[Colour, str] = {}
        if self.serving is not None:
            wanted[self.serving.colour] = self.serving.release_id
        if self.candidate is not None:
            wanted[self.candidate.colour] = self.candidate.release_id
        return wanted

    def started(self, release_id: str, at: datetime) -> State:
        """A candidate begins, on the colour that does not serve."""
        if self.candidate is not None:
            raise ReleaseError(f"release {self.candidate.release_id} is still being tried")
        colour: Colour = "green" if self.serving is not None and self.serving.colour == "blue" else "blue"
        return self._with(candidate=Candidate(release_id=release_id, colour=colour, since=at))

    def switched(self, release_id: str, share: int, at: datetime) -> State:
        """`share` percent of the traffic are to go to the candidate; never less than it has already."""
        candidate = self.candidate_named(release_id)
        share = max(share, candidate.share) if self.serving is not None else ALL
        return self._with(candidate=candidate.model_copy(update={"share": share, "since": at}))

    def renewed(self, release_id: str, at: datetime) -> State:
        """The candidate has its whole time once more."""
        return self._with(candidate=self.candidate_named(release_id).model_copy(update={"since": at}))

    def watched(self, release_id: str, p99_seconds: float | None) -> State:
        """The candidate has been watched, and was this fast."""
        return self._with(candidate=self.candidate_named(release_id).model_copy(update={"p99_seconds": p99_seconds}))

    def promoted(self, release_id: str, at: datetime, reason: str) -> State:
        """The candidate is what serves."""
        candidate = self.candidate_named(release_id)
        if candidate.share != ALL:
            raise ReleaseError(
                f"release {release_id} has {candidate.share} % of the traffic: it cannot be promoted yet"
            )
        serving = Serving(release_id=release_id, colour=candidate.colour, p99_seconds=candidate.p99_seconds)
        return self._ended(release_id, "promoted", at, reason)._with(serving=serving)

    def dropped(self, release_id: str, at: datetime, reason: str) -> State:
        """The candidate is given up; what served goes on, or gets its traffic back."""
        candidate = self.candidate_named(release_id)
        return self._ended(release_id, "rolled_back" if candidate.share else "failed", at, reason)

    def promoted_ever(self) -> tuple[str, ...]:
        """The releases that served, the last one first: what a rollback may put back, so nothing may remove them."""
        return tuple(dict.fromkeys(entry.release_id for entry in self.history if entry.event == "promoted"))

    def promoted_before(self) -> tuple[str, ...]:
        """Those that serve no longer."""
        serving = self.serving.release_id if self.serving is not None else None
        return tuple(release for release in self.promoted_ever() if release != serving)

    def candidate_named(self, release_id: str) -> Candidate:
        """The candidate. Raises ReleaseError where it is not this release."""
        if self.candidate is not None and self.candidate.release_id == release_id:
            return self.candidate
        ending = next((entry for entry in self.history if entry.release_id == release_id), None)
        if ending is None:
            raise ReleaseError(f"release {release_id} is not being tried; clear `deploy` to try it")
        raise ReleaseError(
            f"release {release_id} is no longer being tried: {ending.event.replace('_', ' ')} at "
            f"{ending.at:%Y-%m-%d %H:%M:%S} UTC ({ending.reason}); clear `deploy` to try the same weights again"
        )

    def _ended(self, release_id: str, event: Event, at: datetime, reason: str) -> State:
        entry = HistoryEntry(release_id=release_id, event=event, at=at, reason=reason)
        history = (entry, *self.history)
        promoted = [entry for entry in history if entry.event == "promoted"][:PROMOTED_KEPT]
        kept = tuple(entry for number, entry in enumerate(history) if number < HISTORY_LENGTH or entry in promoted)
        return self._with(candidate=None, history=kept)

    def _with(self, **changes: Any) -> State:
        return self.model_copy(update=changes)


class Objects(Protocol):
    """What the records need of a bucket; include.s3.Bucket has it."""

    def read(self, key: str) -> Stored | None:
        """The object, or None."""
        ...

    def create(self, key: str, body: bytes) -> str:
        """Write a new object, or raise ObjectChanged."""
        ...

    def replace(self, key: str, body: bytes, etag: str) -> str:
        """Write over the one that was read, or raise ObjectChanged."""
        ...

    def keys(self, prefix: str) -> list[str]:
        """The keys that begin so."""
        ...


class Releases:
    """The release records of every project. Raises ReleaseError for records that cannot be read."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def state(self, project: str) -> tuple[State, str | None]:
        """The desired state, and the ETag to write it back with (None: never written)."""
        stored = self._objects.read(_state_key(project))
        if stored is None:
            return State(), None
        try:
            return State.model_validate_json(stored.body), stored.etag
        except ValidationError as error:
            raise ReleaseError(f"{_state_key(project)} cannot be read: {error}") from error

    def write_state(self, project: str, state: State, etag: str | None) -> str:
        """Compare-and-set; returns the new ETag. Raises TurnLost where the state is no longer the one that was read."""
        body = state.model_dump_json(indent=1).encode()
        try:
            if etag is None:
                return self._objects.create(_state_key(project), body)
            return self._objects.replace(_state_key(project), body, etag)
        except ObjectChanged as error:
            raise TurnLost(f"another deploy has changed the release state of {project} meanwhile") from error

    def projects(self) -> list[str]:
        """Every project that was ever released, also those whose file is gone."""
        states = (key.split("/") for key in self._objects.keys("releases/") if key.endswith("/state.json"))
        return [parts[1] for parts in states]

    def champion(self, project: str) -> Record | None:
        """What was promoted last, and so what a challenger must beat; None before the first."""
        state, _ = self.state(project)
        return self.record(project, state.serving.release_id) if state.serving else None

    def add(self, record: Record) -> None:
        """Write a record. Raises ReleaseError where another one has its id."""
        try:
            self._objects.create(
                _record_key(record.project, record.release_id), record.model_dump_json(indent=1).encode()
            )
        except ObjectChanged as error:
            raise ReleaseError(
                f"there is another release {record.release_id} of {record.project}; try again"
            ) from error

    def record(self, project: str, release_id: str) -> Record:
        """A release's record. Raises ReleaseError where it is missing or unreadable."""
        stored = self._objects.read(_record_key(project, release_id))
        if stored is None:
            raise ReleaseError(f"there is no record of release {release_id} of {project}")
        try:
            return Record.model_validate_json(stored.body)
        except ValidationError as error:
            raise ReleaseError(f"{_record_key(project, release_id)} cannot be read: {error}") from error


def release_id(at: datetime, model_version: str) -> str:
    """`YYYYMMDDTHHMMSSmmmZ-v<model version>`; `at` is UTC."""
    return f"{at:%Y%m%dT%H%M%S}{at.microsecond // 1000:03d}Z-v{model_version}"


def _state_key(project: str) -> str:
    return f"releases/{project}/state.json"


def _record_key(project: str, release: str) -> str:
    return f"releases/{project}/{release}.json"
