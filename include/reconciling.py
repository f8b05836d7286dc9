"""One function that makes what is follow what should be: containers, route, alias, from the release records alone."""

from __future__ import annotations

import logging
from datetime import timedelta
from http import HTTPStatus

from include.api_containers import ContainerError, base_url
from include.haproxy_config import server_name
from include.releases import Colour, Route, State
from include.turns import Turn
from include.world import World

log = logging.getLogger(__name__)

UP_SECONDS = 60
DRAIN_SECONDS = 60
POLL_SECONDS = 0.2


def converge(turn: Turn) -> None:
    """Start what should run, route to what should serve, then remove what should not be there.

    The order is the safety: nothing is removed while traffic may go to it, so this may be cut off anywhere and
    run again.

    Raises ContainerError where Docker does not make or start a container that should run. Of what serves, it is raised
    when all else is done, and where a candidate is to take its place anyway, it is only said.
    """
    state, route = turn.state, turn.state.route
    missing: ContainerError | None = None

    def ensure(colour: Colour) -> None:
        nonlocal missing
        try:
            _ensure(turn, colour, state.wanted[colour])
        except ContainerError as error:
            if state.candidate is not None and state.candidate.colour == colour:
                raise
            missing = error

    if route is not None:
        ensure(route.colour)
    _route(turn, route)
    _remove_strays(turn)
    for colour in state.wanted:
        if route is None or colour != route.colour:
            ensure(colour)
    if missing is not None:
        if state.candidate is None:
            raise missing
        log.error("what served does not run: %s", missing)


def crown(world: World, project: str, state: State) -> None:
    """Point the alias `champion` at what serves. What serves does not depend on it."""
    if state.serving is None:
        return
    version = world.releases.record(project, state.serving.release_id).model_version
    if world.aliases.champion(project) == version:
        return
    if world.aliases.set_champion(project, version):
        log.info("champion project=%s version=%s", project, version)
    else:
        log.warning(
            "version %s of the model %s serves, but is gone from MLflow's registry: no alias `champion` names it until "
            "the next release",
            version,
            project,
        )


def wait_until_up(turn: Turn, colour: Colour, seconds: float, *, least: int) -> bool:
    """Whether `least` of this colour's present containers answer, and the front door finds them well, in `seconds`."""
    deadline = turn.world.clock.now() + timedelta(seconds=seconds)
    while len(replicas_up(turn.world, turn.project.name, colour)) < least:
        if turn.world.clock.now() >= deadline:
            return False
        turn.wait(POLL_SECONDS)
    return True


def replicas_up(world: World, project: str, colour: Colour) -> list[int]:
    """The numbers of this colour's containers that answer and that the front door finds well."""
    found = [container for container in world.containers.of(project) if container.colour == colour]
    up = []
    for number, address in sorted((container.number, container.address) for container in found if container.address):
        # Asked in this order: HAProxy calls a server with a new address up until its first check says otherwise.
        if world.http.get(f"{base_url(project, colour, number)}/health").status != HTTPStatus.OK:
            continue
        # It may still hold the former container's address for a moment, and call that up.
        server = world.door.server(project, colour, number)
        if server.up and server.address == address:
            up.append(number)
    return up


def _ensure(turn: Turn, colour: Colour, release_id: str) -> None:
    """The colour's containers are there, are this release's, and run."""
    world, project = turn.world, turn.project
    present = {found.number: found for found in world.containers.of(project.name) if found.colour == colour}
    for number in range(1, project.replicas + 1):
        name = server_name(project.name, colour, number)
        found = present.get(number)
        if found is not None and found.release_id != release_id:
            with turn.effect():
                world.containers.remove(name)
            found = None
        if found is None:
            log.info("creating container=%s release=%s", name, release_id)
            record = world.releases.record(project.name, release_id)
            with turn.effect():
                world.containers.create(project, record, colour, number)
        if found is None or not found.running:
            with turn.effect():
                world.containers.start(name)


def _route(turn: Turn, route: Route | None) -> None:
    former = turn.world.door.routed(turn.project.name)
    if route is not None and former is not None and former.colour != route.colour:
        # Going back to containers that had to be started anew: what still answers goes on until one is warm.
        wait_until_up(turn, route.colour, UP_SECONDS, least=1)
    if former != route:
        log.info("routing project=%s from=%s to=%s", turn.project.name, former, route)
    with turn.effect():
        turn.world.door.route(turn.project.name, route)


def _remove_strays(turn: Turn) -> None:
    wanted, name = turn.state.wanted, turn.project.name
    for container in turn.world.containers.of(name):
        if wanted.get(container.colour) == container.release_id:
            if container.number <= turn.project.replicas:
                continue
        else:
            _drain(turn, container.colour)
        log.info("removing container=%s release=%s", container.name, container.release_id)
        with turn.effect():
            turn.world.containers.remove(container.name)


def _drain(turn: Turn, colour: Colour) -> None:
    """Wait until the containers have answered what they were asked; a request that takes longer is cut off."""
    project, waited = turn.project.name, 0.0
    while (open_requests := turn.world.door.sessions(project, colour)) > 0:
        if waited >= DRAIN_SECONDS:
            log.warning("cut off project=%s colour=%s requests=%d after=%.0fs", project, colour, open_requests, waited)
            return
        turn.wait(POLL_SECONDS)
        waited += POLL_SECONDS
