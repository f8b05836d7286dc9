"""The steps of a release: deploy, verify, promote or roll back. Each may be killed at any line and run again.

A step changes the project's state by one compare-and-set, then lets `converge` make the world follow.
"""

from __future__ import annotations

import logging

from pydantic import BaseModel, ConfigDict

from include import baking, candidates, turns
from include.candidates import ABANDONED
from include.project import Project
from include.proving import NotProved, prove_behind_the_door
from include.reconciling import converge, crown
from include.releases import ALL, Colour, Record, Releases, State, release_id
from include.train_result import Registered, TrainResult
from include.turns import Busy, Turn
from include.world import World

log = logging.getLogger(__name__)


class ChampionChanged(Exception):
    """What serves is no longer what the challenger was compared with: gate again."""


class Wish(BaseModel):
    """What a run asks to be released, and the champion version it was gated against (None: there was none)."""

    model_config = ConfigDict(frozen=True)

    train: TrainResult
    registered: Registered
    champion_version: str | None
    airflow_run_id: str
    reason: str


class Deployed(BaseModel):
    """The XCom of `deploy`; see docs/contracts.md."""

    model_config = ConfigDict(frozen=True)

    release_id: str
    colour: Colour
    previous_release_id: str | None


def deploy(world: World, project: Project, wish: Wish) -> Deployed:
    """Start the run's containers beside those that serve, prove them, then move traffic: all, or the first share.

    Raises ChampionChanged and Busy with nothing done, DeployError with the new containers removed again.
    Anything else (Docker, S3, HAProxy away) leaves the candidate for the next attempt to go on with.
    """
    with turns.taken(world, project, wish.airflow_run_id) as turn:
        record = _begin(turn, wish)
        candidates.switch(turn, record, project.shares[0])
        colour = turn.state.candidate_named(record.release_id).colour
        return Deployed(release_id=record.release_id, colour=colour, previous_release_id=record.previous_release_id)


def verify(world: World, project: Project, release: str) -> str:
    """Watch the release under its shares of the traffic, then under all of it; returns what was seen.

    Worse than the project's limits, or wrong behind the front door: the traffic goes back at once, and DeployError
    has the figures. Started again, it goes on with the present share.
    """
    record = world.releases.record(project.name, release)
    with turns.taken(world, project, record.airflow_run_id) as turn:
        colour = turn.state.candidate_named(release).colour
        try:
            for share in project.shares:
                if share < turn.state.candidate_named(release).share:
                    continue
                candidates.switch(turn, record, share)
                if share < ALL:
                    baking.watch(turn, colour, project.canary_minutes * 60)
            prove_behind_the_door(turn, record)
            figures = baking.watch(turn, colour, project.bake.seconds)
            turn.write(lambda now: now.watched(release, figures.p99_seconds))
            return str(figures)
        except NotProved as error:
            raise candidates.refused(turn, record, str(error)) from None


def promote(world: World, project: Project, release: str) -> None:
    """The release is what serves: the state says so, then the alias `champion`; then the old containers go."""
    record = world.releases.record(project.name, release)
    with turns.taken(world, project, record.airflow_run_id) as turn:
        if turn.state.serving is None or turn.state.serving.release_id != release:
            candidates.promote(turn, record, record.reason)
        crown(world, project.name, turn.state)
        converge(turn)


def rollback(world: World, project: Project, airflow_run_id: str, reason: str) -> str:
    """Give up what this Airflow run was trying, traffic first; returns in words what was done and what serves now."""
    with turns.taken(world, project, airflow_run_id) as turn:
        done = "nothing is left to roll back"
        record = candidates.trial(turn)
        if record is not None:
            if record.airflow_run_id == airflow_run_id:
                candidates.drop(turn, record, reason)
                done = "rolled back"
        elif (champion := world.releases.champion(project.name)) and champion.airflow_run_id == airflow_run_id:
            done = "not rolled back, since its release was promoted already; clear `promote` to end that"
        return f"{done}; {candidates.settle(turn)}"


def _begin(turn: Turn, wish: Wish) -> Record:
    """The candidate to prove: the one that an earlier attempt of this run began, else a new one."""
    world, project = turn.world, turn.project
    record = candidates.trial(turn)
    if record is not None:
        if (record.run_id, record.airflow_run_id) == (wish.registered.run_id, wish.airflow_run_id):
            return record
        if not candidates.abandoned(turn):
            raise Busy(
                f"release {record.release_id} of the Airflow run {record.airflow_run_id} is being tried since "
                f"{record.created_at:%H:%M:%S} UTC: this deploy can go on when that has ended"
            )
        candidates.drop(turn, record, ABANDONED)
        log.warning("%s", candidates.settle(turn))
    crown(world, project.name, turn.state)
    _check_champion(world.releases, project.name, turn.state, wish)
    record = _record(turn, wish)
    candidates.begin(turn, record)
    return record


def _check_champion(releases: Releases, project: str, state: State, wish: Wish) -> None:
    serving = releases.record(project, state.serving.release_id).model_version if state.serving is not None else None
    if serving != wish.champion_version:
        raise ChampionChanged(
            f"model version {wish.registered.model_version} was compared with {_version(wish.champion_version)}, but "
            f"{_version(serving)} serves now: evaluate and gate it again"
        )


def _version(version: str | None) -> str:
    return "no champion" if version is None else f"version {version}"


def _record(turn: Turn, wish: Wish) -> Record:
    at, state = turn.world.clock.now(), turn.state
    return Record(
        release_id=release_id(at, wish.registered.model_version),
        project=turn.project.name,
        run_id=wish.registered.run_id,
        model_version=wish.registered.model_version,
        dvc_hash=wish.train.dvc_hash,
        dvc_hash_onnx=wish.train.dvc_hash_onnx,
        dvc_hash_golden=wish.train.dvc_hash_golden,
        snapshot_id=wish.train.snapshot_id,
        snapshot_md5=wish.train.snapshot_md5,
        api_image_id=turn.world.containers.image_id(),
        created_at=at,
        airflow_run_id=wish.airflow_run_id,
        previous_release_id=state.serving.release_id if state.serving is not None else None,
        reason=wish.reason,
        provenance=wish.registered.provenance,
    )
