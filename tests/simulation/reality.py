"""What a deployment acts on, in memory: it outlives the processes that act on it, which may die at every point."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from include.api_checks import Answer
from include.api_containers import ApiContainer, ContainerError, ImageGone
from include.bake_limits import BakeLimits
from include.containers import DockerUnavailable
from include.deployment import Wish
from include.haproxy_config import server_name
from include.haproxy_runtime import FrontDoorError, ServerStatus, Traffic
from include.project import Project
from include.registry import RegistryUnavailable
from include.releases import Colour, Record, Releases, Route, TurnLost
from include.s3 import ObjectChanged, StorageError, Stored
from include.train_result import Provenance, Registered, TrainResult
from include.world import World

PROJECT = Project(name="digits", bucket="digits-train", bake=BakeLimits(seconds=2, min_requests=20))
FRONT = "http://front:8000"
BEGINNING = datetime(2026, 11, 23, 17, 0, tzinfo=UTC)
PROBABILITIES = {"0": 0.25, "1": 0.75}
GOLDEN = json.dumps(
    {"images": [{"name": "a.png", "content": base64.b64encode(b"a").decode(), "probabilities": PROBABILITIES}]}
).encode()
GOLDEN_MD5 = hashlib.md5(GOLDEN, usedforsecurity=False).hexdigest()
REQUESTS_A_SECOND = 20

Service = Literal["s3", "mlflow", "docker", "haproxy"]
# What can be wrong with a model, or its container: never healthy; other weights than released; other predictions than
# recorded, at once or behind the front door only; failing, slow or crashing requests once it has traffic.
Fault = Literal["unhealthy", "impostor", "wrong", "wrong behind the door", "failing", "slow", "crashing"]
# With these, none may ever have traffic; with the others, none may be promoted.
NEVER_TRUSTED: frozenset[Fault] = frozenset({"unhealthy", "impostor", "wrong"})


class Killed(BaseException):
    """The process dies here."""


@dataclass
class Box:
    """A container."""

    record: Record
    colour: Colour
    number: int
    address: str
    running: bool = False
    answers_from: datetime = BEGINNING
    restarts: int = 0

    @property
    def name(self) -> str:
        return server_name(self.record.project, self.colour, self.number)


@dataclass
class Reality:
    """What exists outside the processes. `point` is called before and after every effect, and where one waits."""

    objects: dict[str, Stored] = field(default_factory=dict)
    boxes: dict[str, Box] = field(default_factory=dict)
    routes: dict[str, Route] = field(default_factory=dict)
    turns: dict[str, int] = field(default_factory=dict)
    fenced: set[str] = field(default_factory=set)
    champions: dict[str, str] = field(default_factory=dict)
    open_requests: dict[Colour, int] = field(default_factory=dict)
    now: datetime = BEGINNING
    start_seconds: float = 0
    faults: dict[str, Fault] = field(default_factory=dict)  # by run
    down: set[Service] = field(default_factory=set)
    deleted_versions: set[str] = field(default_factory=set)
    images: list[str] = field(default_factory=lambda: ["sha256:api"])
    writes: int = 0
    point: Callable[[], None] = lambda: None
    pass_time: Callable[[float], None] | None = None
    watch: Callable[[], None] = lambda: None

    @contextmanager
    def effect(self) -> Iterator[None]:
        """An effect: the process may die before it, or after it."""
        self.point()
        yield
        self.watch()
        self.point()

    def reach(self, service: Service) -> None:
        """Raise what a process sees of a service that is away."""
        if service in self.down:
            if service == "docker":
                raise DockerUnavailable("at http://docker-gate:2375", OSError("refused"))
            raise {"s3": StorageError, "mlflow": RegistryUnavailable, "haproxy": FrontDoorError}[service]("is away")

    def sleep(self, seconds: float) -> None:
        """Time passes."""
        if self.pass_time is not None:
            return self.pass_time(seconds)
        self.now += timedelta(seconds=seconds)
        self.open_requests = {}

    def fault(self, record: Record) -> Fault | None:
        """What is wrong with a release."""
        return self.faults.get(record.run_id)

    def answers(self, box: Box) -> bool:
        """Whether a container answers requests now."""
        return box.running and self.now >= box.answers_from and self.fault(box.record) != "unhealthy"

    def alive(self, colour: Colour) -> list[Box]:
        """The colour's containers that answer now."""
        return [box for box in self.boxes.values() if box.colour == colour and self.answers(box)]

    def answering(self) -> list[Box]:
        """The containers that may answer a client now, as HAProxy decides by its maps; none: clients get an error."""
        route = self.routes.get(PROJECT.name)
        if route is None:
            return []
        main, other = self.alive(route.colour), self.alive(other_than(route.colour))
        if route.other_share is None:
            return main
        return [*main, *(other if route.other_share or not main else [])]

    def serving_run(self) -> str | None:
        """The run whose containers answer most clients now."""
        boxes = self.answering()
        return boxes[0].record.run_id if boxes else None

    def world(self) -> World:
        """The World that a process sees."""
        objects = _Objects(self)
        return World(
            releases=Releases(objects),
            containers=_Containers(self),
            door=_Door(self),
            aliases=_Aliases(self),
            locked=_Locked(self),
            http=_Http(self),
            clock=_Clock(self),
            front_url=FRONT,
        )


def other_than(colour: Colour) -> Colour:
    """The other one of the two."""
    return "green" if colour == "blue" else "blue"


@dataclass
class _Objects:
    reality: Reality

    def read(self, key: str) -> Stored | None:
        self.reality.reach("s3")
        return self.reality.objects.get(key)

    def create(self, key: str, body: bytes) -> str:
        with self.reality.effect():
            self.reality.reach("s3")
            there = self.reality.objects.get(key)
            if there is not None and there.body != body:
                raise ObjectChanged(key)
            return self._put(key, body)

    def replace(self, key: str, body: bytes, etag: str) -> str:
        with self.reality.effect():
            self.reality.reach("s3")
            if self.reality.objects[key].etag != etag:
                raise ObjectChanged(key)
            return self._put(key, body)

    def keys(self, prefix: str) -> list[str]:
        self.reality.reach("s3")
        return sorted(key for key in self.reality.objects if key.startswith(prefix))

    def _put(self, key: str, body: bytes) -> str:
        self.reality.writes += 1
        self.reality.objects[key] = Stored(body, str(self.reality.writes))
        return str(self.reality.writes)


@dataclass
class _Containers:
    reality: Reality

    def of(self, project: str) -> list[ApiContainer]:
        self.reality.reach("docker")
        return [
            ApiContainer(
                project,
                box.colour,
                box.number,
                box.record.release_id,
                box.running,
                box.address if box.running else None,
                self._restarts(box),
            )
            for box in self.reality.boxes.values()
            if box.record.project == project
        ]

    def image_id(self) -> str:
        self.reality.reach("docker")
        return self.reality.images[-1]

    def has_image(self, image_id: str) -> bool:
        self.reality.reach("docker")
        return image_id in self.reality.images

    def create(self, project: Project, record: Record, colour: Colour, number: int) -> None:
        self.reality.reach("docker")
        if record.api_image_id not in self.reality.images:
            raise ImageGone(record)
        with self.reality.effect():
            self.reality.writes += 1
            box = Box(record, colour, number, f"ip-{self.reality.writes}")
            assert box.name not in self.reality.boxes, "Docker lets only one container have a name"
            self.reality.boxes[box.name] = box

    def start(self, name: str) -> None:
        self.reality.reach("docker")
        with self.reality.effect():
            if name not in self.reality.boxes:
                raise ContainerError(f"Docker did not start the container {name}: No such container")
            box = self.reality.boxes[name]
            if not box.running:
                box.running = True
                box.answers_from = self.reality.now + timedelta(seconds=self.reality.start_seconds)

    def remove(self, name: str) -> None:
        self.reality.reach("docker")
        with self.reality.effect():
            self.reality.boxes.pop(name, None)

    def last_log_lines(self, name: str, lines: int) -> str:
        return f"log of {name}"

    def _restarts(self, box: Box) -> int:
        if self.reality.fault(box.record) == "crashing" and box in self.reality.answering():
            box.restarts += 1
        return box.restarts


@dataclass
class _Door:
    reality: Reality

    @contextmanager
    def fenced(self, project: str, number: int) -> Iterator[None]:
        while project in self.reality.fenced:
            self.reality.sleep(0.1)
        self.reality.fenced.add(project)
        try:
            if self.reality.turns.get(project, 0) > number:
                raise TurnLost(f"turn {self.reality.turns[project]} after {number}")
            self.reality.turns[project] = number
            yield
        finally:
            self.reality.fenced.discard(project)

    def last_turn(self, project: str) -> int:
        return self.reality.turns.get(project, 0)

    def routed(self, project: str) -> Route | None:
        self.reality.reach("haproxy")
        return self.reality.routes.get(project)

    def route(self, project: str, route: Route | None) -> None:
        self.reality.reach("haproxy")
        if self.reality.routes.get(project) == route:
            return
        with self.reality.effect():
            if route is None:
                del self.reality.routes[project]
            else:
                self.reality.routes[project] = route

    def server(self, project: str, colour: Colour, number: int) -> ServerStatus:
        self.reality.reach("haproxy")
        # Up from its start on, though it does not answer yet: so does HAProxy until its first check.
        box = self.reality.boxes.get(server_name(project, colour, number))
        if box is None or not box.running:
            return ServerStatus(None, False)
        return ServerStatus(box.address, self.reality.fault(box.record) != "unhealthy")

    def sessions(self, project: str, colour: Colour) -> int:
        return self.reality.open_requests.get(colour, 0)

    def traffic(self, project: str, colour: Colour) -> Traffic:
        self.reality.reach("haproxy")
        requests = int(self.reality.now.timestamp() * REQUESTS_A_SECOND)
        faults = {self.reality.fault(box.record) for box in self.reality.boxes.values() if box.colour == colour}
        return Traffic(requests, requests // 2 if "failing" in faults else 0)


@dataclass
class _Aliases:
    reality: Reality

    def champion(self, project: str) -> str | None:
        self.reality.reach("mlflow")
        return self.reality.champions.get(project)

    def set_champion(self, project: str, version: str) -> bool:
        self.reality.reach("mlflow")
        if version in self.reality.deleted_versions:
            return False
        with self.reality.effect():
            self.reality.champions[project] = version
        return True


@dataclass
class _Locked:
    reality: Reality

    def read(self, what: str, md5: str) -> bytes:
        self.reality.reach("s3")
        assert md5 == GOLDEN_MD5
        return GOLDEN


@dataclass
class _Clock:
    reality: Reality

    def now(self) -> datetime:
        return self.reality.now

    def sleep(self, seconds: float) -> None:
        self.reality.sleep(seconds)


@dataclass
class _Http:
    reality: Reality

    def get(self, url: str) -> Answer:
        return self._answer("GET", url)

    def post(self, url: str, body: bytes) -> Answer:
        return self._answer("POST", url)

    def _answer(self, method: str, url: str) -> Answer:
        host, _, path = url.removeprefix("http://").partition("/")
        behind_the_door = url.startswith(FRONT)
        if behind_the_door:
            path = path.partition("/")[2]
            box = next(iter(self.reality.answering()), None)
        else:
            box = self.reality.boxes.get(host.partition(":")[0])
        if box is None or not self.reality.answers(box):
            return Answer(url, method, None, b"connection refused", 0.01)
        return Answer(url, method, 200, self._body(path, box.record, behind_the_door), 0.01)

    def _body(self, path: str, record: Record, behind_the_door: bool) -> bytes:
        fault = self.reality.fault(record)
        if path == "metrics":
            return _metrics(self.reality.now, slow=fault == "slow")
        if path == "health":
            answer: object = {"status": "ok", "release_id": record.release_id, "run_id": record.run_id}
        elif path == "metadata":
            hashes = {"dvc_hash_onnx": "0" * 32} if fault == "impostor" else {}
            answer = record.model_dump(mode="json") | hashes
        else:
            wrong = fault == "wrong" or (fault == "wrong behind the door" and behind_the_door)
            answer = {"probabilities": {"0": 0.75, "1": 0.25} if wrong else PROBABILITIES}
        return json.dumps(answer).encode()


def _metrics(now: datetime, slow: bool) -> bytes:
    count = int(now.timestamp() * REQUESTS_A_SECOND)
    buckets = {"0.01": 0 if slow else count, "1.0": count}
    lines = [f'airlock_predict_seconds_bucket{{le="{bound}"}} {value}' for bound, value in buckets.items()]
    return "\n".join(["# TYPE airlock_predict_seconds histogram", *lines, ""]).encode()


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
        registered=Registered(
            run_id=run_id(version),
            dvc_hash=md5,
            model_version=str(version),
            provenance=Provenance(experiment_id="1", git_commit="abc", image_id="sha256:trainer", accuracy=0.97),
        ),
        champion_version=str(champion) if champion else None,
        airflow_run_id=f"run-{version}",
        reason="better",
    )
