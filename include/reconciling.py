"""One function that makes what is follow what should be: containers, route, alias, from the release records alone."""

from __future__ import annotations

import logging
from datetime import timedelta
from http import HTTPStatus

from include.api_containers import ContainerError, base_url
from include.haproxy_config import server_name
from include.project import Project
from include.releases import Colour, State
from include.world import World

log = logging.getLogger(__name__)

UP_SECONDS = 60
DRAIN_SECONDS = 60
POLL_SECONDS = 0.2


def converge(world: World, project: Project, state: State) -> None:
    """Start what should run, route to what should serve, then remove what should not be there.

    The order is the safety: nothing is removed while traffic may go to it, so this may be cut off anywhere and
    run again. The caller holds the project's lock.

    Raises ContainerError where Docker does not make or start a container that should run. Of what serves, it is raised
    when all else is done, and where a candidate is to take its place anyway, it is only said.
    """
    missing: ContainerError | None = None

    def ensure(colour: Colour, release_id: str) -> None:
        nonlocal missing
        try:
            _ensure(world, project, colour, release_id)
        except ContainerError as error:
            if state.candidate is not None and state.candidate.release_id == release_id:
                raise
            missing = error

    active = state.active
    if active is not None:
        ensure(active.colour, active.release_id)
    _route(world, project, active.colour if active is not None else None)
    for container in world.containers.of(project.name):
        if state.wanted.get(container.colour) != container.release_id:
            _drain(world, project.name, container.colour)
            log.info("removing container=%s release=%s", container.name, container.release_id)
            world.containers.remove(container.name)
    for colour, release_id in state.wanted.items():
        if active is None or colour != active.colour:
            ensure(colour, release_id)
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


def wait_until_up(world: World, project: str, colour: Colour, seconds: float) -> bool:
    """Whether this colour's present container answers, and the front door finds it well, within `seconds`."""
    deadline = world.clock.now() + timedelta(seconds=seconds)
    while not _is_up(world, project, colour):
        if world.clock.now() >= deadline:
            return False
        world.clock.sleep(POLL_SECONDS)
    return True


def _is_up(world: World, project: str, colour: Colour) -> bool:
    # Asked in this order: HAProxy calls a server with a new address up until its first check says otherwise.
    if world.http.get(f"{base_url(project, colour)}/health").status != HTTPStatus.OK:
        return False
    # It may still hold the former container's address for a moment, and call that up.
    address = next((found.address for found in world.containers.of(project) if found.colour == colour), None)
    server = world.door.server(project, colour)
    return server.up and address is not None and server.address == address


def _ensure(world: World, project: Project, colour: Colour, release_id: str) -> None:
    """The colour's container is there, is this release's, and runs."""
    name = server_name(project.name, colour)
    found = next((container for container in world.containers.of(project.name) if container.colour == colour), None)
    if found is not None and found.release_id != release_id:
        world.containers.remove(name)
        found = None
    if found is None:
        log.info("creating container=%s release=%s", name, release_id)
        world.containers.create(project, world.releases.record(project.name, release_id), colour)
    if found is None or not found.running:
        world.containers.start(name)


def _route(world: World, project: Project, colour: Colour | None) -> None:
    former = world.door.routed(project.name)
    if colour is not None and former not in (None, colour):
        # Going back to a container that had to be started anew: what still answers goes on until it is warm.
        wait_until_up(world, project.name, colour, UP_SECONDS)
    if former != colour:
        log.info("routing project=%s from=%s to=%s", project.name, former, colour)
    world.door.route(project.name, colour)


def _drain(world: World, project: str, colour: Colour) -> None:
    """Wait until the container has answered what it was asked; a request that takes longer is cut off."""
    waited = 0.0
    while (open_requests := world.door.sessions(project, colour)) > 0:
        if waited >= DRAIN_SECONDS:
            log.warning("cut off project=%s colour=%s requests=%d after=%.0fs", project, colour, open_requests, waited)
            return
        world.clock.sleep(POLL_SECONDS)
        waited += POLL_SECONDS
