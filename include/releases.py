"""What was released, what serves, and what is being tried: the records that every deploy step works from."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from include.s3 import ObjectChanged, Stored

HISTORY_LENGTH = 50
# A candidate whose steps have not ended by then was left by a run that died.
CANDIDATE_LASTS = timedelta(minutes=30)

Colour = Literal["blue", "green"]
Phase = Literal["starting", "switched"]
Event = Literal["promoted", "failed", "rolled_back"]

RELEASE_ID = re.compile(r"\d{8}T\d{9}Z-v\d+")


class ReleaseError(Exception):
    """The release records do not allow what was asked."""


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


class Candidate(BaseModel):
    """The release being tried. `switched`: traffic is to go to it."""

    model_config = ConfigDict(frozen=True)

    release_id: str
    colour: Colour
    phase: Phase


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

    @property
    def active(self) -> Serving | None:
        """Where traffic is to go: to the candidate once it is switched, else to what serves."""
        if self.candidate is not None and self.candidate.phase == "switched":
            return Serving(release_id=self.candidate.release_id, colour=self.candidate.colour)
        return self.serving

    @property
    def wanted(self) -> dict[Colour, str]:
        """The release that each colour's container is to run; a colour that is not here has none."""
        wanted: dict[Colour, str] = {}
        if self.serving is not None:
            wanted[self.serving.colour] = self.serving.release_id
        if self.candidate is not None:
            wanted[self.candidate.colour] = self.candidate.release_id
        return wanted

    def started(self, release_id: str) -> State:
        """A candidate begins, on the colour that does not serve."""
        if self.candidate is not None:
            raise ReleaseError(f"release {self.candidate.release_id} is still being tried")
        colour: Colour = "green" if self.serving is not None and self.serving.colour == "blue" else "blue"
        candidate = Candidate(release_id=release_id, colour=colour, phase="starting")
        return self.model_copy(update={"candidate": candidate})

    def switched(self, release_id: str) -> State:
        """Traffic is to go to the candidate."""
        candidate = self.candidate_named(release_id)
        return self.model_copy(update={"candidate": candidate.model_copy(update={"phase": "switched"})})

    def promoted(self, release_id: str, at: datetime, reason: str) -> State:
        """The candidate is what serves."""
        candidate = self.candidate_named(release_id)
        if candidate.phase != "switched":
            raise ReleaseError(f"release {release_id} has no traffic yet: it cannot be promoted before it is switched")
        serving = Serving(release_id=release_id, colour=candidate.colour)
        return self._ended(release_id, "promoted", at, reason).model_copy(update={"serving": serving})

    def dropped(self, release_id: str, at: datetime, reason: str) -> State:
        """The candidate is given up; what served goes on, or gets its traffic back."""
        candidate = self.candidate_named(release_id)
        return self._ended(release_id, "rolled_back" if candidate.phase == "switched" else "failed", at, reason)

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
        return self.model_copy(update={"candidate": None, "history": (entry, *self.history)[:HISTORY_LENGTH]})


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


class StateLost(Exception):
    """Another process changed the project's state meanwhile; nothing was written."""


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

    def write_state(self, project: str, state: State, etag: str | None) -> None:
        """Compare-and-set. Raises StateLost where the state is no longer the one that was read."""
        body = state.model_dump_json(indent=1).encode()
        try:
            if etag is None:
                self._objects.create(_state_key(project), body)
            else:
                self._objects.replace(_state_key(project), body, etag)
        except ObjectChanged as error:
            raise StateLost(f"the release state of {project} was changed by another deploy meanwhile") from error

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
