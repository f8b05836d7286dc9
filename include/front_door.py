"""The front door: which container each project's traffic goes to, in HAProxy's map and in its file."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from include.haproxy_config import (
    COLOURS,
    CONFIG_FILE,
    MAP_FILE,
    SERVERS_FILE,
    backend_name,
    render,
    server_name,
)
from include.haproxy_runtime import FrontDoorError, Runtime, ServerStatus
from include.releases import Colour

RELOAD_SECONDS = 20
POLL_SECONDS = 0.1


class FrontDoor:
    """HAProxy's files and its running state. Every method raises FrontDoorError where HAProxy does not answer."""

    def __init__(self, directory: Path, seen_as: Path | None = None) -> None:
        """`seen_as` is the same directory where HAProxy sees it."""
        self.directory = directory
        self._seen_as = seen_as or directory
        self._map = str(self._seen_as / MAP_FILE)
        self._runtime = Runtime(directory)

    @contextmanager
    def lock(self, project: str) -> Iterator[None]:
        """One process at a time converges a project; a killed one lets go."""
        with self._locked(f"{project}.lock"):
            yield

    def routed(self, project: str) -> Colour | None:
        """Where HAProxy sends a project's traffic now; None: nowhere."""
        backend = self._runtime.map(self._map).get(project)
        return next((colour for colour in COLOURS if backend == backend_name(project, colour)), None)

    def route(self, project: str, colour: Colour | None) -> None:
        """Send a project's traffic to a colour (None: nowhere): one step for clients, and it outlives a restart."""
        backend = backend_name(project, colour) if colour else None
        with self._locked(f"{MAP_FILE}.lock"):
            # File first: HAProxy reads it when it starts. What runs is its base, so that a lost file is made whole.
            entries = self._runtime.map(self._map)
            entries.pop(project, None)
            self._write_map(entries | ({project: backend} if backend else {}))
            self._runtime.set_map(self._map, project, backend)

    def route_all(self, routes: Callable[[], Mapping[str, Colour]]) -> None:
        """Make file and runtime say exactly what `routes` returns, whatever they said.

        It is asked under the lock: a deploy that has switched meanwhile has written so before it takes the lock.
        """
        with self._locked(f"{MAP_FILE}.lock"):
            entries = {project: backend_name(project, colour) for project, colour in routes().items()}
            self._write_map(entries)
            if self._runtime.running():
                for project in sorted(self._runtime.map(self._map).keys() | entries.keys()):
                    self._runtime.set_map(self._map, project, entries.get(project))

    def server(self, project: str, colour: Colour) -> ServerStatus:
        """What HAProxy knows of a colour's container."""
        return self._runtime.server(backend_name(project, colour), server_name(project, colour))

    def sessions(self, project: str, colour: Colour) -> int:
        """Requests that a colour's container is answering now."""
        backend = backend_name(project, colour)
        return self._runtime.sessions(backend) if backend in self._runtime.backends() else 0

    def configure(self, names: frozenset[str]) -> bool:
        """Render the configuration; where it changed and HAProxy runs, reload it. Returns whether it changed.

        Raises FrontDoorError, with the former file back in place, where HAProxy does not take the new one.
        """
        path = self.directory / CONFIG_FILE
        new = render(names, self._seen_as)
        former = path.read_text() if path.exists() else None
        running = self._runtime.running()
        if not (self.directory / MAP_FILE).exists():
            self._write_map({})  # HAProxy does not start without
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

    def _write_map(self, entries: Mapping[str, str]) -> None:
        _write(self.directory / MAP_FILE, "".join(f"{key} {value}\n" for key, value in sorted(entries.items())))

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        with (self.directory / name).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _write(path: Path, text: str) -> None:
    """Whole or not at all, also across a crash of the machine."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with part.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
