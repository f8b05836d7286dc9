"""A release on trial: begun, given its share of the traffic, and ended one way or the other, each by one write."""

from __future__ import annotations

import logging
from datetime import timedelta

from include.api_containers import ContainerError
from include.proving import NotProved, prove
from include.reconciling import converge
from include.releases import CANDIDATE_LASTS, Record, Releases
from include.turns import Turn

log = logging.getLogger(__name__)

ABANDONED = "its run left it unfinished"


class DeployError(Exception):
    """A release was refused; what served goes on serving. The message has the failed check and the container's log."""


def begin(turn: Turn, record: Record) -> None:
    """Make a release the candidate. Its record is there, or is written here."""
    turn.world.releases.add(record)
    turn.write(lambda now: now.started(record.release_id, turn.world.clock.now()))


def switch(turn: Turn, record: Record, share: int) -> None:
    """Prove the candidate, then move so much of the traffic to it. Raises DeployError with the candidate given up."""
    if turn.state.candidate_named(record.release_id).share == 0:
        try:
            converge(turn)
            prove(turn, record)
        except (NotProved, ContainerError) as error:
            raise refused(turn, record, str(error)) from None
    turn.write(lambda now: now.switched(record.release_id, share, turn.world.clock.now()))
    converge(turn)


def refused(turn: Turn, record: Record, why: str) -> DeployError:
    """Give the candidate up, traffic first; the error to raise says why, and what serves now."""
    drop(turn, record, why.splitlines()[0])
    return DeployError(f"{why}\n{settle(turn)}")


def drop(turn: Turn, record: Record, reason: str) -> None:
    """The candidate is given up; `settle` lets the world follow."""
    turn.write(lambda state: state.dropped(record.release_id, turn.world.clock.now(), reason))


def settle(turn: Turn) -> str:
    """Let the world follow when a candidate was given up; in words, what serves then.

    That Docker cannot put back what served is said, not raised: a next release must still be possible.
    """
    try:
        converge(turn)
    except ContainerError as error:
        return f"nothing serves {turn.project.name}: {error}"
    return what_serves(turn.world.releases, turn.project.name)


def promote(turn: Turn, record: Record, reason: str) -> None:
    """The candidate is what serves: the state says so."""
    turn.write(lambda now: now.promoted(record.release_id, turn.world.clock.now(), reason))


def trial(turn: Turn) -> Record | None:
    """The record of the candidate, or None."""
    candidate = turn.state.candidate
    return None if candidate is None else turn.world.releases.record(turn.project.name, candidate.release_id)


def abandoned(turn: Turn) -> bool:
    """Whether the candidate's next step is so late that its run must have died."""
    candidate = turn.state.candidate
    lasts = CANDIDATE_LASTS + timedelta(seconds=turn.project.trial_seconds)
    return candidate is not None and turn.world.clock.now() - candidate.since > lasts


def what_serves(releases: Releases, project: str) -> str:
    """In words, for a person."""
    champion = releases.champion(project)
    if champion is None:
        return f"nothing serves {project}: no release was promoted yet"
    return (
        f"release {champion.release_id} of {project} serves (model version {champion.model_version}, "
        f"run {champion.run_id})"
    )
