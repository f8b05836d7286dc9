"""One process at a time acts on a project: its turn is a lease in the release state, with a fencing number.

The lease is taken and renewed by compare-and-set of the state itself, so that the write which takes a turn also ends
the former one's right to write. Effects on Docker and HAProxy are fenced by the number, at the front door. After
M. Kleppmann, "How to do distributed locking" (2016).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta

from include.project import Project
from include.releases import Lease, State, TurnLost
from include.world import World

log = logging.getLogger(__name__)

# Renewed when half of it is over. One that was killed keeps others waiting for as long, but not its own retry.
LEASE = timedelta(seconds=60)
# How long to wait for another's turn to end, or for a killed one's lease.
PATIENCE = timedelta(seconds=90)
POLL_SECONDS = 1.0
# Somebody takes a turn every few minutes; when nobody did for so long, the machine was off.
PAUSE = timedelta(minutes=15)


class Busy(Exception):
    """Another process has the turn at this project; try again when it has ended."""


class Turn:
    """The right to act on one project, from `taken`. Every method raises TurnLost once another has taken it."""

    def __init__(self, world: World, project: Project, state: State, etag: str | None, lease: Lease) -> None:
        self.world = world
        self.project = project
        self.after_a_pause = state.lease is not None and world.clock.now() - state.lease.until > PAUSE
        self._lease = lease
        self._state = state
        self._etag = etag
        self._put(state, lease)

    @property
    def state(self) -> State:
        """The project's desired state; nobody else can have changed it without taking the turn."""
        return self._state

    def write(self, change: Callable[[State], State]) -> State:
        """Change the desired state by one compare-and-set, which also renews the lease; returns what was written."""
        self._put(change(self._state), self._lease.model_copy(update={"until": self._now() + LEASE}))
        return self._state

    @contextmanager
    def effect(self) -> Iterator[None]:
        """Around every effect on containers or routes: none happens, nor goes on, beside one of a later turn."""
        self.keep()
        with self.world.door.fenced(self.project.name, self._lease.number):
            yield

    def wait(self, seconds: float) -> None:
        """Sleep, and keep the turn."""
        self.world.clock.sleep(seconds)
        self.keep()

    def keep(self) -> None:
        """Renew the lease where half of it is over."""
        if self._lease.until - self._now() < LEASE / 2:
            self.write(lambda state: state)

    def end(self) -> None:
        """Let the next one have its turn at once."""
        self._put(self._state, self._lease.model_copy(update={"holder": None, "until": self._now()}))

    def _put(self, state: State, lease: Lease) -> None:
        state = state.model_copy(update={"lease": lease})
        self._etag = self.world.releases.write_state(self.project.name, state, self._etag)
        self._state, self._lease = state, lease

    def _now(self) -> datetime:
        return self.world.clock.now()


@contextmanager
def taken(
    world: World, project: Project, holder: str, *, seize: bool = False, patience: timedelta = PATIENCE
) -> Iterator[Turn]:
    """The turn at a project, given back at the end; one that was killed loses it when its lease is over.

    `holder` is the Airflow run, or whoever else acts: it takes over from itself at once. `seize` takes over from
    anybody. Raises Busy where another still has it when `patience` is at its end, TurnLost where it was taken away.
    """
    turn = _wait_for(world, project, holder, seize, world.clock.now() + patience)
    try:
        yield turn
    except Exception:
        with suppress(TurnLost):
            _end(turn)
        raise
    _end(turn)


def _wait_for(world: World, project: Project, holder: str, seize: bool, deadline: datetime) -> Turn:
    while True:
        try:
            return _take(world, project, holder, seize)
        except Busy:
            if world.clock.now() >= deadline:
                raise
        world.clock.sleep(POLL_SECONDS)


def _take(world: World, project: Project, holder: str, seize: bool) -> Turn:
    state, etag = world.releases.state(project.name)
    now, lease = world.clock.now(), state.lease
    if lease is not None and lease.holder not in (None, holder) and lease.until > now and not seize:
        raise Busy(f"{lease.holder} is acting on {project.name} until {lease.until:%H:%M:%S} UTC or longer")
    # Records put back from a backup may know an older number than the front door.
    number = max(lease.number if lease is not None else 0, world.door.last_turn(project.name)) + 1
    try:
        turn = Turn(world, project, state, etag, Lease(number=number, holder=holder, until=now + LEASE))
    except TurnLost as error:
        raise Busy(f"{error}: try again") from None
    with turn.effect():  # from here on the former turn has no effects
        return turn


def _end(turn: Turn) -> None:
    try:
        turn.end()
    except TurnLost:  # what was seen in it holds no more
        raise
    except Exception as error:  # what was done is done; the lease ends by itself
        log.warning("the turn at %s was not given back: %s", turn.project.name, error)
