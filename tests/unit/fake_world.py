"""A World in memory that can be killed before and after each of its effects."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from include.api_checks import Answer
from include.api_containers import ApiContainer, ImageGone
from include.deployment import Wish
from include.haproxy_config import server_name
from include.haproxy_runtime import ServerStatus
from include.project import Project
from include.releases import Colour, Record, Releases
from include.s3 import ObjectChanged, Stored
from include.train_result import Registered, TrainResult
from include.world import World

PROJECT = Project(name="digits", bucket="digits-train")
FRONT = "http://front:8000"
PROBABILITIES = {"0": 0.25, "1": 0.75}
GOLDEN = json.dumps(
    {"images": [{"name": "a.png", "content": base64.b64encode(b"a").decode(), "probabilities": PROBABILITIES}]}
).encode()
GOLDEN_MD5 = hashlib.md5(GOLDEN, usedforsecurity=False).hexdigest()


class Killed(BaseException):
    """The process dies here."""


@dataclass
class Reality:
    """What exists outside the process, and so outlives it."""

    objects: dict[str, Stored] = field(default_factory=dict)
    containers: dict[str, tuple[Record, Colour, bool]] = field(default_factory=dict)
    routes: dict[str, Colour] = field(default_factory=dict)
    champions: dict[str, str] = field(default_factory=dict)
    open_requests: dict[Colour, int] = field(default_factory=dict)
    now: datetime = datetime(2026, 11, 23, 17, 0, tzinfo=UTC)
    start_seconds: float = 0
    answers_from: dict[str, datetime] = field(default_factory=dict)
    unhealthy: set[str] = field(default_factory=set)
    impostors: set[str] = field(default_factory=set)
    wrong: set[str] = field(default_factory=set)
    wrong_behind_the_door: set[str] = field(default_factory=set)
    mlflow_down: bool = False
    deleted_versions: set[str] = field(default_factory=set)
    images: list[str] = field(default_factory=lambda: ["sha256:api"])
    writes: int = 0
    steps: int = 0
    killed_at: int | None = None
    watch: Callable[[], None] = lambda: None

    @contextmanager
    def effect(self) -> Iterator[None]:
        """An effect: the process may die before it, or after it."""
        self._step()
        yield
        self.watch()
        self._step()

    def _step(self) -> None:
        self.steps += 1
        if self.steps == self.killed_at:
            raise Killed

    def serving_run(self) -> str | None:
        """The run whose container answers a client now."""
        colour = self.routes.get(PROJECT.name)
        found = self.containers.get(server_name(PROJECT.name, colour)) if colour else None
        return found[0].run_id if found and found[2] else None

    def world(self) -> World:
        """The World that a process sees."""
        objects = _Objects(self)
        return World(
            releases=Releases(objects),
            containers=_Containers(self),
            door=_Door(self),
            aliases=_Aliases(self),
            locked=_Locked(),
            http=_Http(self),
            clock=_Clock(self),
            front_url=FRONT,
        )


@dataclass
class _Objects:
    reality: Reality

    def read(self, key: str) -> Stored | None:
        return self.reality.objects.get(key)

    def create(self, key: str, body: bytes) -> str:
        there = self.reality.objects.get(key)
        if there is not None and there.body != body:
            raise ObjectChanged(key)
        return self._put(key, body)

    def replace(self, key: str, body: bytes, etag: str) -> str:
        if self.reality.objects[key].etag != etag:
            raise ObjectChanged(key)
        return self._put(key, body)

    def _put(self, key: str, body: bytes) -> str:
        with self.reality.effect():
            self.reality.writes += 1
            self.reality.objects[key] = Stored(body, str(self.reality.writes))
        return str(self.reality.writes)


@dataclass
class _Containers:
    reality: Reality

    def of(self, project: str) -> list[ApiContainer]:
        return [
            ApiContainer(project, colour, record.release_id, running, f"ip-of-{record.release_id}")
            for record, colour, running in self.reality.containers.values()
            if record.project == project
        ]

    def image_id(self) -> str:
        return self.reality.images[-1]

    def create(self, project: Project, record: Record, colour: Colour) -> None:
        name = server_name(project.name, colour)
        assert name not in self.reality.containers, "Docker lets only one container have a name"
        if record.api_image_id not in self.reality.images:
            raise ImageGone(record)
        with self.reality.effect():
            self.reality.containers[name] = (record, colour, False)

    def start(self, name: str) -> None:
        record, colour, _ = self.reality.containers[name]
        with self.reality.effect():
            self.reality.containers[name] = (record, colour, True)
        self.reality.answers_from[name] = self.reality.now + timedelta(seconds=self.reality.start_seconds)

    def remove(self, name: str) -> None:
        with self.reality.effect():
            self.reality.containers.pop(name, None)

    def last_log_lines(self, name: str, lines: int) -> str:
        return f"log of {name}"


@dataclass
class _Door:
    reality: Reality

    @contextmanager
    def lock(self, project: str) -> Iterator[None]:
        yield

    def routed(self, project: str) -> Colour | None:
        return self.reality.routes.get(project)

    def route(self, project: str, colour: Colour | None) -> None:
        if self.reality.routes.get(project) == colour:
            return
        with self.reality.effect():
            if colour is None:
                del self.reality.routes[project]
            else:
                self.reality.routes[project] = colour

    def server(self, project: str, colour: Colour) -> ServerStatus:
        # Up from its start on, though it does not answer yet: so does HAProxy until its first check.
        found = self.reality.containers.get(server_name(project, colour))
        if found is None or not found[2]:
            return ServerStatus(None, False)
        return ServerStatus(f"ip-of-{found[0].release_id}", found[0].run_id not in self.reality.unhealthy)

    def sessions(self, project: str, colour: Colour) -> int:
        return self.reality.open_requests.get(colour, 0)


@dataclass
class _Aliases:
    reality: Reality

    def champion(self, project: str) -> str | None:
        self._reach()
        return self.reality.champions.get(project)

    def set_champion(self, project: str, version: str) -> bool:
        self._reach()
        if version in self.reality.deleted_versions:
            return False
        with self.reality.effect():
            self.reality.champions[project] = version
        return True

    def _reach(self) -> None:
        if self.reality.mlflow_down:
            raise ConnectionError("MLflow is down")


class _Locked:
    def read(self, what: str, md5: str) -> bytes:
        assert md5 == GOLDEN_MD5
        return GOLDEN


@dataclass
class _Clock:
    reality: Reality

    def now(self) -> datetime:
        return self.reality.now

    def sleep(self, seconds: float) -> None:
        self.reality.now += timedelta(seconds=seconds)
        self.reality.open_requests = {}


@dataclass
class _Http:
    reality: Reality

    def get(self, url: str) -> Answer:
        return self._answer("GET", url)

    def post(self, url: str, body: bytes) -> Answer:
        return self._answer("POST", url)

    def _answer(self, method: str, url: str) -> Answer:
        host, _, path = url.removeprefix("http://").partition("/")
        name = host.partition(":")[0]
        behind_the_door = url.startswith(FRONT)
        if behind_the_door:
            project, _, path = path.partition("/")
            colour = self.reality.routes.get(project)
            name = server_name(project, colour) if colour else ""
        found = self.reality.containers.get(name)
        starting = self.reality.now < self.reality.answers_from.get(name, self.reality.now)
        if found is None or not found[2] or starting or found[0].run_id in self.reality.unhealthy:
            return Answer(url, method, None, b"connection refused", 0.01)
        body = json.dumps(self._body(path, found[0], behind_the_door)).encode()
        return Answer(url, method, 200, body, 0.01)

    def _body(self, path: str, record: Record, behind_the_door: bool) -> object:
        if path == "health":
            return {"status": "ok", "release_id": record.release_id, "run_id": record.run_id}
        if path == "metadata":
            hashes = {"dvc_hash_onnx": "0" * 32} if record.run_id in self.reality.impostors else {}
            return record.model_dump(mode="json") | hashes
        wrong = self.reality.wrong | (self.reality.wrong_behind_the_door if behind_the_door else set())
        answered = {"0": 0.75, "1": 0.25} if record.run_id in wrong else PROBABILITIES
        return {"probabilities": answered}


def run_id(version: int) -> str:
    """The run of a model version."""
    return f"{version:032x}"


def wish(version: int, champion: int | None) -> Wish:
    """What the Airflow run of a model version asks for."""
    md5 = f"{version:032x}"
    train = TrainResult(
        run_id=run_id(version),
        dvc_hash=md5,
        dvc_hash_onnx=md5,
        dvc_hash_golden=GOLDEN_MD5,
        dvc_hash_split=md5,
        snapshot_id="20261123T160000000Z-c71581aa",
        snapshot_md5=f"{md5}.dir",
        metrics={},
        classes=("0", "1"),
    )
    return Wish(
        train=train,
        registered=Registered(run_id=run_id(version), dvc_hash=md5, model_version=str(version)),
        champion_version=str(champion) if champion else None,
        airflow_run_id=f"run-{version}",
        reason="better",
    )
