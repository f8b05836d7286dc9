"""The steps of a release: deploy, verify, promote or roll back. Each may be killed at any line and run again.

A step changes the project's state by one compare-and-set, then lets `converge` make the world follow.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from include.api_checks import CheckFailed, check_health, check_identity, read_golden, replay_golden
from include.api_containers import ContainerError, ImageGone, base_url
from include.haproxy_config import server_name
from include.locked_objects import LockError
from include.project import Project
from include.reconciling import UP_SECONDS, converge, crown, wait_until_up
from include.releases import CANDIDATE_LASTS, Candidate, Colour, Record, Releases, State, release_id
from include.train_result import Registered, TrainResult
from include.world import World

log = logging.getLogger(__name__)

HEALTH_ATTEMPTS = 20
HEALTH_INTERVAL_SECONDS = 2.0
LOG_LINES = 20
ABANDONED = "its run left it unfinished"


class DeployError(Exception):
    """A release was refused; what served goes on serving. The message has the failed check and the container's log."""


class ChampionChanged(Exception):
    """What serves is no longer what the challenger was compared with: gate again."""


class DeployBusy(Exception):
    """Another run's release is being tried; try again when it has ended."""


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
    """Start the run's container beside the one that serves, prove it, then move the traffic in one step.

    Raises ChampionChanged and DeployBusy with nothing done, DeployError with the new container removed again.
    Anything else (Docker, S3, HAProxy away) leaves the candidate for the next attempt to go on with.
    """
    with world.door.lock(project.name):
        record, candidate = _begin(world, project, wish)
        _switch(world, project, record, candidate)
        return Deployed(
            release_id=record.release_id, colour=candidate.colour, previous_release_id=record.previous_release_id
        )


def verify(world: World, project: Project, release: str) -> None:
    """Ask the release through the front door, as clients do. Raises DeployError where an answer is wrong."""
    state, _ = world.releases.state(project.name)
    candidate = state.candidate_named(release)
    record = world.releases.record(project.name, release)
    try:
        _ask_everything(world, project, record, f"{world.front_url}/{project.name}")
    except (CheckFailed, LockError) as error:
        raise DeployError(_with_log(world, project.name, candidate.colour, str(error))) from None


def promote(world: World, project: Project, release: str) -> None:
    """The release is what serves: the state says so, then the alias `champion`; then the old container goes."""
    with world.door.lock(project.name):
        state, _ = world.releases.state(project.name)
        if state.serving is None or state.serving.release_id != release:
            reason = world.releases.record(project.name, release).reason
            state = _write(world, project, lambda now: now.promoted(release, world.clock.now(), reason))
        crown(world, project.name, state)
        converge(world, project, state)


def rollback(world: World, project: Project, airflow_run_id: str, reason: str) -> str:
    """Give up what this Airflow run was trying, traffic first; returns in words what was done and what serves now."""
    with world.door.lock(project.name):
        state, _ = world.releases.state(project.name)
        done = "nothing is left to roll back"
        if state.candidate is not None:
            record = world.releases.record(project.name, state.candidate.release_id)
            if record.airflow_run_id == airflow_run_id:
                state = _drop(world, project, record, reason)
                done = "rolled back"
        elif (champion := world.releases.champion(project.name)) and champion.airflow_run_id == airflow_run_id:
            done = "not rolled back, since its release was promoted already; clear `promote` to end that"
        return f"{done}; {_settle(world, project, state)}"


def reconcile(world: World, project: Project) -> str:
    """Put back what should serve, and end what a dead run left; returns in words what serves now.

    Raises DeployError where it was put back but does not get well.
    """
    with world.door.lock(project.name):
        state, _ = world.releases.state(project.name)
        if state.candidate is not None:
            record = world.releases.record(project.name, state.candidate.release_id)
            if _is_again(world.releases, record, state):  # an earlier reconcile was cut off
                state = _end_again(world, project, record)
            elif _abandoned(record, world.clock.now()):
                state = _drop(world, project, record, ABANDONED)
        try:
            converge(world, project, state)
        except ImageGone as error:
            if state.candidate is not None:
                raise
            log.warning("%s", error)
            state = _end_again(world, project, _begin_again(world, project, error.record))
        crown(world, project.name, state)
        active = state.active
        if active is not None and not wait_until_up(world, project.name, active.colour, UP_SECONDS):
            message = f"release {active.release_id} of {project.name} is not well {UP_SECONDS} s after its start"
            raise DeployError(_with_log(world, project.name, active.colour, message))
        return _what_serves(world.releases, project.name)


def _begin(world: World, project: Project, wish: Wish) -> tuple[Record, Candidate]:
    """The candidate to prove: the one that an earlier attempt of this run began, else a new one."""
    state, _ = world.releases.state(project.name)
    if state.candidate is not None:
        record = world.releases.record(project.name, state.candidate.release_id)
        if (record.run_id, record.airflow_run_id) == (wish.registered.run_id, wish.airflow_run_id):
            return record, state.candidate
        if not _abandoned(record, world.clock.now()):
            raise DeployBusy(
                f"release {record.release_id} of the Airflow run {record.airflow_run_id} is being tried since "
                f"{record.created_at:%H:%M:%S} UTC: this deploy can go on when that has ended"
            )
        state = _drop(world, project, record, ABANDONED)
        log.warning("%s", _settle(world, project, state))
    crown(world, project.name, state)
    _check_champion(world.releases, project.name, state, wish)
    record = _record(world, project, state, wish)
    world.releases.add(record)
    state = _write(world, project, lambda now: now.started(record.release_id))
    return record, state.candidate_named(record.release_id)


def _check_champion(releases: Releases, project: str, state: State, wish: Wish) -> None:
    serving = releases.record(project, state.serving.release_id).model_version if state.serving is not None else None
    if serving != wish.champion_version:
        raise ChampionChanged(
            f"model version {wish.registered.model_version} was compared with {_version(wish.champion_version)}, but "
            f"{_version(serving)} serves now: evaluate and gate it again"
        )


def _version(version: str | None) -> str:
    return "no champion" if version is None else f"version {version}"


def _record(world: World, project: Project, state: State, wish: Wish) -> Record:
    at = world.clock.now()
    return Record(
        release_id=release_id(at, wish.registered.model_version),
        project=project.name,
        run_id=wish.registered.run_id,
        model_version=wish.registered.model_version,
        dvc_hash=wish.train.dvc_hash,
        dvc_hash_onnx=wish.train.dvc_hash_onnx,
        dvc_hash_golden=wish.train.dvc_hash_golden,
        snapshot_id=wish.train.snapshot_id,
        snapshot_md5=wish.train.snapshot_md5,
        api_image_id=world.containers.image_id(),
        created_at=at,
        airflow_run_id=wish.airflow_run_id,
        previous_release_id=state.serving.release_id if state.serving is not None else None,
        reason=wish.reason,
    )


def _is_again(releases: Releases, record: Record, state: State) -> bool:
    return (
        state.serving is not None and releases.record(record.project, state.serving.release_id).run_id == record.run_id
    )


def _begin_again(world: World, project: Project, former: Record) -> Record:
    """A candidate of the same run with the API image of now, since the image of its release is on this machine no more.

    So after a restore on another machine: without it, what served would never serve again.
    """
    at = world.clock.now()
    record = former.model_copy(
        update={
            "release_id": release_id(at, former.model_version),
            "api_image_id": world.containers.image_id(),
            "created_at": at,
            "previous_release_id": former.release_id,
            "reason": f"release {former.release_id} again: its API image is gone",
        }
    )
    world.releases.add(record)
    _write(world, project, lambda now: now.started(record.release_id))
    return record


def _end_again(world: World, project: Project, record: Record) -> State:
    """Prove and promote it. Raises DeployError where its answers are not those recorded."""
    state, _ = world.releases.state(project.name)
    _switch(world, project, record, state.candidate_named(record.release_id))
    state = _write(world, project, lambda now: now.promoted(record.release_id, world.clock.now(), record.reason))
    converge(world, project, state)
    return state


def _switch(world: World, project: Project, record: Record, candidate: Candidate) -> None:
    """Prove the candidate, then move the traffic to it. Raises DeployError with the candidate given up."""
    if candidate.phase == "starting":
        try:
            _prove(world, project, record, candidate.colour)
        except (CheckFailed, LockError, ContainerError) as error:
            state = _drop(world, project, record, str(error).splitlines()[0])
            raise DeployError(f"{error}\n{_settle(world, project, state)}") from None
        _write(world, project, lambda state: state.switched(record.release_id))
    converge(world, project, world.releases.state(project.name)[0])


def _prove(world: World, project: Project, record: Record, colour: Colour) -> None:
    """The container is healthy, is who it should be, and predicts what was recorded; HAProxy finds it well too."""
    converge(world, project, world.releases.state(project.name)[0])
    base = base_url(project.name, colour)
    try:
        _wait_for_health(world, base, record)
        _ask_everything(world, project, record, base)
        if not wait_until_up(world, project.name, colour, UP_SECONDS):
            raise CheckFailed(
                f"HAProxy does not find {server_name(project.name, colour)} well within {UP_SECONDS} s, though it "
                "answers: look at HAProxy's log"
            )
    except (CheckFailed, LockError) as error:
        raise CheckFailed(_with_log(world, project.name, colour, str(error))) from None


def _wait_for_health(world: World, base: str, record: Record) -> None:
    for attempt in range(1, HEALTH_ATTEMPTS + 1):
        try:
            return check_health(world.http, base, record)
        except CheckFailed as error:
            if attempt == HEALTH_ATTEMPTS:
                raise CheckFailed(f"not healthy after {attempt} attempts; the last: {error}") from None
            world.clock.sleep(HEALTH_INTERVAL_SECONDS)


def _ask_everything(world: World, project: Project, record: Record, base: str) -> None:
    golden = read_golden(world.locked.read("golden predictions", record.dvc_hash_golden))
    check_health(world.http, base, record)
    check_identity(world.http, base, record)
    replay_golden(world.http, base, golden, project.golden_tolerance)


def _settle(world: World, project: Project, state: State) -> str:
    """Let the world follow when a candidate was given up; in words, what serves then.

    That Docker cannot put back what served is said, not raised: a next release must still be possible.
    """
    try:
        converge(world, project, state)
    except ContainerError as error:
        return f"nothing serves {project.name}: {error}"
    return _what_serves(world.releases, project.name)


def _drop(world: World, project: Project, record: Record, reason: str) -> State:
    return _write(world, project, lambda state: state.dropped(record.release_id, world.clock.now(), reason))


def _write(world: World, project: Project, change: Callable[[State], State]) -> State:
    """One compare-and-set of the project's state; returns what was written."""
    state, etag = world.releases.state(project.name)
    changed = change(state)
    world.releases.write_state(project.name, changed, etag)
    log.info("state project=%s serving=%s candidate=%s", project.name, changed.serving, changed.candidate)
    return changed


def _abandoned(record: Record, now: datetime) -> bool:
    return now - record.created_at > CANDIDATE_LASTS


def _with_log(world: World, project: str, colour: Colour, message: str) -> str:
    name = server_name(project, colour)
    lines = world.containers.last_log_lines(name, LOG_LINES)
    return f"{message}\nlast log lines of {name}:\n{lines or '(none)'}"


def _what_serves(releases: Releases, project: str) -> str:
    champion = releases.champion(project)
    if champion is None:
        return f"nothing serves {project}: no release was promoted yet"
    return (
        f"release {champion.release_id} of {project} serves (model version {champion.model_version}, "
        f"run {champion.run_id})"
    )
