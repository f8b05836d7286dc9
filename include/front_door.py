"""The front door: which containers each project's traffic goes to, in HAProxy's maps and in their files."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from include.haproxy_config import (
    COLOURS,
    CONFIG_FILE,
    KEYS_FILE,
    MAP_FILE,
    SERVERS_FILE,
    SHARES_FILE,
    Routed,
    backend_name,
    render,
    server_name,
)
from include.haproxy_runtime import FrontDoorError, Runtime, ServerStatus, Traffic
from include.releases import Colour, Route, TurnLost

RELOAD_SECONDS = 20
POLL_SECONDS = 0.1


class FrontDoor:
    """HAProxy's files and its running state. Every method raises FrontDoorError where HAProxy does not answer."""

    def __init__(self, directory: Path, seen_as: Path | None = None) -> None:
        """`seen_as` is the same directory where HAProxy sees it."""
        self.directory = directory
        self._seen_as = seen_as or directory
        self._map = str(self._seen_as / MAP_FILE)
        self._shares = str(self._seen_as / SHARES_FILE)
        self._keys = str(self._seen_as / KEYS_FILE)
        self._runtime = Runtime(directory)

    @contextmanager
    def fenced(self, project: str, number: int) -> Iterator[None]:
        """Alone with a project's containers and route, in turn `number`. Raises TurnLost after a later turn."""
        with (self.directory / f"{project}.turn").open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # a killed process lets go
            last = _number_in(file)
            if last > number:
                raise TurnLost(f"another deploy took over {project} (turn {last} after {number})")
            if last < number:
                file.truncate(0)
                file.write(str(number))
                file.flush()
            yield

    def last_turn(self, project: str) -> int:
        """The highest turn number that has acted on a project; 0: none."""
        try:
            with (self.directory / f"{project}.turn").open() as file:
                return _number_in(file)
        except FileNotFoundError:
            return 0

    def routed(self, project: str) -> Route | None:
        """Where HAProxy sends a project's traffic now; None: nowhere."""
        return self._routes().get(project)

    def route(self, project: str, route: Route | None) -> None:
        """Send a project's traffic elsewhere (None: nowhere): one step for clients, and it outlives a restart."""
        with self._locked(f"{MAP_FILE}.lock"):
            # Files first: HAProxy reads them when it starts. What runs is their base: a lost file is made whole.
            routes = self._routes()
            routes.pop(project, None)
            self._write_maps(routes | ({project: route} if route else {}))
            self._set(project, route)

    def route_all(self, routes: Callable[[], Mapping[str, Route]]) -> None:
        """Make files and runtime say exactly what `routes` returns, whatever they said.

        It is asked under the lock: a deploy that has switched meanwhile has written so before it takes the lock.
        """
        with self._locked(f"{MAP_FILE}.lock"):
            wanted = routes()
            self._write_maps(wanted)
            if self._runtime.running():
                for project in sorted(self._runtime.map(self._map).keys() | wanted.keys()):
                    self._set(project, wanted.get(project))

    def set_keys(self, keys: Callable[[], Mapping[str, str]]) -> None:
        """Make file and runtime know exactly the API keys that `keys` returns; it is asked under the lock."""
        with self._locked(f"{KEYS_FILE}.lock"):
            wanted = keys()
            _write(self.directory / KEYS_FILE, _lines(wanted))
            if self._runtime.running():
                known = self._runtime.map(self._keys)
                for key in sorted(known.keys() | wanted.keys()):
                    if known.get(key) != wanted.get(key):
                        self._runtime.set_map(self._keys, key, wanted.get(key))

    def server(self, project: str, colour: Colour, number: int) -> ServerStatus:
        """What HAProxy knows of a container."""
        return self._runtime.server(backend_name(project, colour), server_name(project, colour, number))

    def sessions(self, project: str, colour: Colour) -> int:
        """Requests that a colour's containers are answering now."""
        backend = backend_name(project, colour)
        return self._runtime.sessions(backend) if backend in self._runtime.backends() else 0

    def traffic(self, project: str, colour: Colour) -> Traffic:
        """What a colour's containers have been asked since HAProxy's start or last reload."""
        return self._runtime.traffic(backend_name(project, colour))

    def configure(self, projects: Mapping[str, Routed], *, guarded: bool = False) -> bool:
        """Render the configuration; where it changed and HAProxy runs, reload it. Returns whether it changed.

        `projects` are all that may be routed to; `guarded`: who comes from outside needs an API key. Raises
        FrontDoorError, with the former file back in place, where HAProxy does not take the new one.
        """
        path = self.directory / CONFIG_FILE
        new = render(projects, self._seen_as, guarded=guarded)
        former = path.read_text() if path.exists() else None
        running = self._runtime.running()
        names = frozenset(projects)
        for file in (MAP_FILE, SHARES_FILE, KEYS_FILE):
            (self.directory / file).touch()  # HAProxy does not start without
        if new == former and (not running or self._serves(names)):
            return False
        _write(path, new)
        if running:
            try:
                # What is routed while the new worker has read the map, and the old one still answers, would be lost.
                with self._locked(f"{MAP_FILE}.lock"):
                    self._reload(names)
            except FrontDoorError:
                if former is not None:
                    _write(path, former)
                raise
        return True

    def _reload(self, names: frozenset[str]) -> None:
        servers = self.directory / SERVERS_FILE
        # Without its predecessor's addresses the new worker would answer 503 until DNS has told it them.
        _write(servers, self._runtime.servers_state())
        former = self._runtime.pid()
        try:
            self._runtime.reload()
            deadline = time.monotonic() + RELOAD_SECONDS
            while not self._serves(names, not_by=former):
                if time.monotonic() > deadline:
                    raise FrontDoorError(
                        f"HAProxy did not take the new {CONFIG_FILE} within {RELOAD_SECONDS} s and goes on with the "
                        "former one: its log says why"
                    )
                time.sleep(POLL_SECONDS)
        finally:
            # Addresses of today, read by a worker of tomorrow, would be another container's.
            servers.unlink(missing_ok=True)

    def _serves(self, names: frozenset[str], not_by: int | None = None) -> bool:
        """Whether the worker that answers, another than `not_by`, has these projects' backends."""
        wanted = {backend_name(name, colour) for name in names for colour in COLOURS}
        try:
            if self._runtime.pid() == not_by:
                return False
            return {name for name in self._runtime.backends() if "_" in name} == wanted
        except FrontDoorError:
            return False  # between two workers

    def _routes(self) -> dict[str, Route]:
        """What the current worker's maps say."""
        shares = self._runtime.map(self._shares)
        routes = {}
        for project, backend in self._runtime.map(self._map).items():
            colour = next((colour for colour in COLOURS if backend == backend_name(project, colour)), None)
            if colour is not None:
                routes[project] = Route(colour, int(shares[project]) if project in shares else None)
        return routes

    def _set(self, project: str, route: Route | None) -> None:
        """The share is never one of another main colour: it goes first, and comes last."""
        share = None if route is None or route.other_share is None else str(route.other_share)
        former = self._routes().get(project)
        if former is not None and (route is None or former.colour != route.colour):
            self._runtime.set_map(self._shares, project, None)
        self._runtime.set_map(self._map, project, backend_name(project, route.colour) if route else None)
        self._runtime.set_map(self._shares, project, share)

    def _write_maps(self, routes: Mapping[str, Route]) -> None:
        shares = {project: route.other_share for project, route in routes.items() if route.other_share is not None}
        backends = {project: backend_name(project, route.colour) for project, route in routes.items()}
        # A share beside another colour than its own would be the wrong way round: between the two writes there is none.
        _write(self.directory / SHARES_FILE, "")
        _write(self.directory / MAP_FILE, _lines(backends))
        _write(self.directory / SHARES_FILE, _lines(shares))

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        with (self.directory / name).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _number_in(file: TextIO) -> int:
    file.seek(0)
    return int(file.read().strip() or 0)


def _lines(entries: Mapping[str, object]) -> str:
    return "".join(f"{key} {value}\n" for key, value in sorted(entries.items()))


def _write(path: Path, text: str) -> None:
    """Whole or not at all, also across a crash of the machine."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with part.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
