"""What should serve serves again: after a fault, by itself; on a person's word, an earlier release."""

from __future__ import annotations

import logging
from datetime import timedelta

from include import candidates, turns
from include.api_containers import ImageGone
from include.candidates import ABANDONED, DeployError
from include.project import Project
from include.proving import with_log
from include.reconciling import UP_SECONDS, converge, crown, wait_until_up
from include.registry import RegistryUnavailable
from include.releases import ALL, Record, ReleaseError, release_id
from include.turns import Turn
from include.world import World

log = logging.getLogger(__name__)


def reconcile(world: World, project: Project, holder: str, patience: timedelta = turns.PATIENCE) -> str:
    """Put back what should serve, and end what a dead run left; returns in words what serves now.

    Raises Busy where another acts on the project, DeployError where it was put back but does not get well.
    """
    with turns.taken(world, project, holder, patience=patience) as turn:
        _end_what_was_left(turn)
        try:
            converge(turn)
        except ImageGone as error:
            if turn.state.candidate is not None:
                raise
            log.warning("%s", error)
            _go_on(turn, _begin_again(turn, error.record))
        crown(world, project.name, turn.state)
        _check_well(turn)
        return candidates.what_serves(world.releases, project.name)


def put_back(world: World, project: Project, wanted: str | None, holder: str, who: str) -> str:
    """Make an earlier release serve again (None: the one before), by the same proof as a new one.

    Takes the turn from whatever is going on, and gives up what is being tried. Needs no MLflow: `champion` follows when
    it is back. Returns in words what serves. Raises ReleaseError for a release that cannot be put back, with those that
    can; DeployError where it does not prove itself, and what served goes on.
    """
    with turns.taken(world, project, holder, seize=True) as turn:
        release = _chosen(turn, wanted)
        reason = f"put back by {who}"
        trial = candidates.trial(turn)
        if trial is not None and trial.release_id != release:
            candidates.drop(turn, trial, reason)
            log.info("%s", candidates.settle(turn))
        if turn.state.serving is None or turn.state.serving.release_id != release:
            record = world.releases.record(project.name, release)
            if turn.state.candidate is None:
                if not world.containers.has_image(record.api_image_id):
                    record = _begin_again(turn, record)
                else:
                    candidates.begin(turn, record)
            _finish(turn, record, reason)
        try:
            crown(world, project.name, turn.state)
        except RegistryUnavailable as error:
            log.warning("the alias `champion` will follow, by airlock__reconcile: %s", error)
        converge(turn)
        return candidates.what_serves(world.releases, project.name)


def _chosen(turn: Turn, wanted: str | None) -> str:
    """The release to put back. While one is being tried, the one before is what served before its trial."""
    before, serving = turn.state.promoted_before(), turn.state.serving
    choices = turn.state.promoted_ever()
    if wanted in choices:
        return str(wanted)
    known = ", ".join(choices) or "none: nothing was promoted yet"
    if wanted is not None:
        raise ReleaseError(
            f"release {wanted!r} of {turn.project.name} cannot be put back; there are, the newest first: {known}"
        )
    if turn.state.candidate is not None and turn.state.candidate.share and serving is not None:
        return serving.release_id
    if not before:
        raise ReleaseError(f"{turn.project.name} has no earlier release to put back; promoted so far: {known}")
    return before[0]


def _end_what_was_left(turn: Turn) -> None:
    record = candidates.trial(turn)
    if record is None:
        return
    if _is_put_back(turn, record):  # an earlier put_back or reconcile was cut off
        _go_on(turn, record)
    elif turn.after_a_pause:
        # The machine was off, and its run with it, which goes on now: no reason to take its time away.
        turn.write(lambda now: now.renewed(record.release_id, turn.world.clock.now()))
    elif candidates.abandoned(turn):
        candidates.drop(turn, record, ABANDONED)


def _is_put_back(turn: Turn, record: Record) -> bool:
    """Whether the candidate has served before, or is such a one again, and so no run's that will go on with it."""
    if record.release_id in turn.state.promoted_ever():
        return True
    former = record.previous_release_id
    if former is None or former not in turn.state.promoted_ever():
        return False
    return turn.world.releases.record(record.project, former).run_id == record.run_id


def _begin_again(turn: Turn, former: Record) -> Record:
    """A candidate of the same run with the API image of now, since the image of its release is on this machine no more.

    So after a restore on another machine: without it, what served would never serve again.
    """
    at = turn.world.clock.now()
    record = former.model_copy(
        update={
            "release_id": release_id(at, former.model_version),
            "api_image_id": turn.world.containers.image_id(),
            "created_at": at,
            "previous_release_id": former.release_id,
            "reason": f"release {former.release_id} again: its API image is gone",
        }
    )
    candidates.begin(turn, record)
    return record


def _go_on(turn: Turn, record: Record) -> None:
    _finish(turn, record, record.reason)


def _finish(turn: Turn, record: Record, reason: str) -> None:
    """Prove and promote it. Raises DeployError where its answers are not those recorded."""
    candidates.switch(turn, record, ALL)
    candidates.promote(turn, record, reason)
    converge(turn)


def _check_well(turn: Turn) -> None:
    route = turn.state.route
    if route is None or wait_until_up(turn, route.colour, UP_SECONDS, least=turn.project.replicas):
        return
    release = turn.state.wanted[route.colour]
    message = f"release {release} of {turn.project.name} is not well {UP_SECONDS} s after its start"
    raise DeployError(with_log(turn, route.colour, message))
