"""One history: releases, rollbacks and reconciles while processes die and services fail; what must hold, throughout."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import get_args

from include.api_containers import ContainerError
from include.candidates import DeployError
from include.containers import DockerUnavailable
from include.deployment import ChampionChanged, deploy, promote, rollback, verify
from include.haproxy_runtime import FrontDoorError
from include.project import Project
from include.putting_back import put_back, reconcile
from include.registry import RegistryUnavailable
from include.releases import ReleaseError, Route, TurnLost
from include.s3 import StorageError
from include.turns import Busy
from tests.simulation.processes import Processes
from tests.simulation.reality import NEVER_TRUSTED, PROJECT, Fault, Killed, Reality, Service, run_id, wish

AWAY = (StorageError, RegistryUnavailable, DockerUnavailable, FrontDoorError)
HOPELESS = (DeployError, ReleaseError, TurnLost, ContainerError)
ATTEMPTS = 12
RETRY_SECONDS = 60
EVERY_SECONDS = 300
# So many that a candidate whose run has died is abandoned.
ROUNDS_AT_THE_END = 12


class Broken(AssertionError):
    """Something that must hold does not."""


@dataclass
class Outcome:
    """What happened, line by line, and what was broken (None: nothing)."""

    seed: int
    log: list[str]
    broken: str | None


def play(seed: int) -> Outcome:
    """One history; the same seed gives the same."""
    history = History(seed)
    try:
        history.play()
    except Broken as error:
        return Outcome(seed, history.processes.log, str(error))
    return Outcome(seed, history.processes.log, None)


class History:
    """A project in which version 1 serves, and what happens to it."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.reality = Reality(start_seconds=self.draw.choice([0, 1, 8]))
        self.project = self._project()
        self.harmed = False
        self.released = False
        self.processes = Processes(self.reality, self.draw, danger=0, check=self._check)

    def play(self) -> None:
        """The first release in peace, then the faults, then peace again: all must end well."""
        self._run_of(1, None)()
        self.released = True
        self.reality.now += timedelta(hours=1)
        self.processes.danger = self.draw.choice([0, 0.003, 0.01, 0.05])
        for version in range(2, 2 + self.draw.randint(1, 3)):
            if self.draw.random() < 0.5:
                self.reality.faults[run_id(version)] = self.draw.choice(get_args(Fault))
            self.processes.start(f"run {version}", self._run_of(version, 1), self.draw.choice([0, 1, 30, 200]))
        if self.draw.random() < 0.5:
            self.processes.start("person", self._person, self.draw.choice([1, 10, 60, 300]))
        for number in range(4):
            self.processes.start(f"reconcile {number}", self._reconcile, number * EVERY_SECONDS)
        if self.draw.random() < 0.3:
            self.processes.start("fault", self._trouble, self.draw.uniform(0, 400), mortal=False)
        self.processes.run()
        self._peace()

    def _peace(self) -> None:
        self.processes.danger = 0
        self.reality.down.clear()
        for number in range(ROUNDS_AT_THE_END):
            self.processes.start(f"reconcile at the end {number}", self._reconcile)
            self.processes.run()
            if number and self.reality.world().releases.state(self.project.name)[0].candidate is None:
                break
            self.reality.now += timedelta(seconds=EVERY_SECONDS)
        self._check_converged()

    def _project(self) -> Project:
        canary = self.draw.choice([()] * 12 + [(20,), (5, 50)])
        return PROJECT.model_copy(
            update={"replicas": self.draw.choice([1, 2, 2]), "canary": canary, "canary_minutes": 1}
        )

    def _run_of(self, version: int, champion: int | None) -> Callable[[], None]:
        """An Airflow run: each step is tried again after it died or met an outage; `rollback` after one has failed."""

        def program() -> None:
            try:
                self._release(version, champion)
            except (*HOPELESS, ChampionChanged, Busy, *AWAY) as error:
                self.processes.say(f"failed: {type(error).__name__}: {str(error).splitlines()[0]}")
                world, name = self.reality.world(), f"run-{version}"
                try:
                    self.processes.say(self._step(lambda: rollback(world, self.project, name, "a step failed")))
                except (*HOPELESS, Busy, *AWAY) as again:
                    self.processes.say(f"rollback failed: {again}")

        return program

    def _release(self, version: int, champion: int | None) -> None:
        world = self.reality.world()
        wanted = wish(version, champion)

        def deployed() -> str:
            serving = world.releases.champion(self.project.name)
            seen = serving.model_version if serving is not None else None
            return deploy(world, self.project, wanted.model_copy(update={"champion_version": seen})).release_id

        release = self._step(deployed)
        self.processes.say(f"deployed {release}")
        self.processes.say(self._step(lambda: verify(world, self.project, release)))
        self._step(lambda: promote(world, self.project, release))
        self.processes.say(f"promoted {release}")

    def _step(self, step: Callable[[], str | None]) -> str:
        """What Airflow does with a task. Raises what ended it."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return step() or ""
            except (Busy, *AWAY, ChampionChanged) as error:
                if attempt == ATTEMPTS:
                    raise
                self.processes.say(f"tries again after: {error}")
            except Killed:
                if attempt == ATTEMPTS or self.draw.random() < 0.2:
                    raise  # its machine is gone, and nobody tries again
            self.processes.sleep(RETRY_SECONDS)
        raise AssertionError("unreachable")

    def _person(self) -> None:
        world = self.reality.world()
        wanted = None
        try:
            choices = [None, None, *world.releases.state(self.project.name)[0].promoted_ever(), "nonsense"]
            wanted = self.draw.choice(choices)
            said = self._step(lambda: put_back(world, self.project, wanted, "person", "a person"))
            self.processes.say(f"put back {wanted}: {said}")
        except (*HOPELESS, Busy, *AWAY) as error:
            self.processes.say(f"put back {wanted} failed: {error}")

    def _reconcile(self) -> None:
        try:
            self.processes.say(reconcile(self.reality.world(), self.project, "reconcile", timedelta(0)))
        except (*HOPELESS, Busy, *AWAY) as error:
            self.processes.say(f"{type(error).__name__}: {str(error).splitlines()[0]}")

    def _trouble(self) -> None:
        """Something from outside: a service away for a while, or a hand that removes or stops a container."""
        kind = self.draw.choice(["outage", "remove", "stop", "lost alias", "lost route"])
        self.processes.say(kind)
        boxes = sorted(self.reality.boxes)
        if kind == "outage":
            service: Service = self.draw.choice(get_args(Service))
            self.reality.down.add(service)
            self.processes.sleep(self.draw.choice([5, 100, 400]))
            self.reality.down.discard(service)
        elif kind == "lost alias":
            self.reality.champions.clear()
        elif kind == "lost route":
            self.harmed = True
            self.reality.routes.clear()
        elif boxes:
            self.harmed = True
            name = self.draw.choice(boxes)
            if kind == "remove":
                del self.reality.boxes[name]
            else:
                self.reality.boxes[name].running = False

    def _check(self) -> None:
        """What must hold at every moment."""
        if not self.released:
            return
        answering = self.reality.answering()
        if not answering and not self.harmed:
            raise Broken("a moment without a server")
        for box in answering:
            if self.reality.fault(box.record) in NEVER_TRUSTED:
                raise Broken(f"{box.name} of release {box.record.release_id} has traffic and was never proved")

    def _check_converged(self) -> None:
        """What must hold when the faults have ended and reconcile has run."""
        state, _ = self.reality.world().releases.state(self.project.name)
        if state.candidate is not None:
            raise Broken(f"release {state.candidate.release_id} is still being tried")
        if state.serving is None:
            raise Broken("nothing serves")
        record = self.reality.world().releases.record(self.project.name, state.serving.release_id)
        if fault := self.reality.fault(record):
            raise Broken(f"a model that is {fault} was promoted")
        if self.reality.champions.get(self.project.name) != record.model_version:
            raise Broken(f"champion is {self.reality.champions}, {record.model_version} serves")
        if self.reality.routes.get(self.project.name) != Route(state.serving.colour):
            raise Broken(f"traffic goes to {self.reality.routes}, {state.serving} serves")
        wanted = {
            f"{self.project.name}-{state.serving.colour}-{number}" for number in range(1, self.project.replicas + 1)
        }
        if set(self.reality.boxes) != wanted:
            raise Broken(f"there are {sorted(self.reality.boxes)}, there should be {sorted(wanted)}")
        for box in self.reality.boxes.values():
            if box.record.release_id != state.serving.release_id or not box.running:
                raise Broken(f"{box.name} runs={box.running} release {box.record.release_id}")
