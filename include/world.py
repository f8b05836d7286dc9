"""What a deployment acts on, passed in: records, containers, front door, registry, store, HTTP and clock."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from include.api_checks import Http
from include.api_containers import ApiContainer
from include.haproxy_runtime import ServerStatus, Traffic
from include.project import Project
from include.releases import Colour, Record, Releases, Route


class Containers(Protocol):
    """The API containers; include.api_containers.ApiContainers has it."""

    def of(self, project: str) -> list[ApiContainer]:
        """A project's, running or not."""
        ...

    def image_id(self) -> str:
        """The immutable id of the API image that a new release gets."""
        ...

    def has_image(self, image_id: str) -> bool:
        """Whether an image is on the Docker host."""
        ...

    def create(self, project: Project, record: Record, colour: Colour, number: int) -> None:
        """Make a release's container, not yet started."""
        ...

    def start(self, name: str) -> None:
        """Start a container; nothing happens where it runs."""
        ...

    def remove(self, name: str) -> None:
        """Stop and remove a container; one that is gone is no error."""
        ...

    def last_log_lines(self, name: str, lines: int) -> str:
        """What a container said last."""
        ...


class Door(Protocol):
    """The front door; include.front_door.FrontDoor has it."""

    def fenced(self, project: str, number: int) -> AbstractContextManager[None]:
        """Alone with a project's containers and route, in turn `number`; raises TurnLost after a later turn."""
        ...

    def last_turn(self, project: str) -> int:
        """The highest turn number that has acted on a project."""
        ...

    def routed(self, project: str) -> Route | None:
        """Where traffic goes now."""
        ...

    def route(self, project: str, route: Route | None) -> None:
        """Send traffic elsewhere (None: nowhere)."""
        ...

    def server(self, project: str, colour: Colour, number: int) -> ServerStatus:
        """What the front door knows of a container."""
        ...

    def sessions(self, project: str, colour: Colour) -> int:
        """Requests that a colour's containers are answering now."""
        ...

    def traffic(self, project: str, colour: Colour) -> Traffic:
        """What a colour's containers have been asked so far; now and then it begins anew."""
        ...


class Aliases(Protocol):
    """The registry's alias `champion`; include.registry.Registry has it."""

    def champion(self, project: str) -> str | None:
        """The version that it names."""
        ...

    def set_champion(self, project: str, version: str) -> bool:
        """Point it at a version; whether there is one."""
        ...


class Locked(Protocol):
    """What DVC locked; include.locked_objects.LockedObjects has it."""

    def read(self, what: str, md5: str) -> bytes:
        """The bytes, of this md5."""
        ...


class Clock(Protocol):
    """Time, so that a test need not wait."""

    def now(self) -> datetime:
        """The time in UTC."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class RealClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The time in UTC."""
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


@dataclass(frozen=True)
class World:
    """Everything that a deploy step reads or changes. `front_url`: the front door as its clients see it."""

    releases: Releases
    containers: Containers
    door: Door
    aliases: Aliases
    locked: Locked
    http: Http
    clock: Clock
    front_url: str
