"""Deploys, failing deploys, rollbacks, reloads and deaths, one after the other, while clients ask without pause.

Every deployer is a process of its own, so that it can be killed by SIGKILL at any moment.
"""

from __future__ import annotations

import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import docker

from include import s3
from include.api_containers import ApiContainers
from include.candidates import DeployError
from include.deployment import deploy, promote, rollback, verify
from include.front_door import FrontDoor
from include.haproxy_config import server_name
from include.locked_objects import LockedObjects
from include.project import Project
from include.putting_back import put_back, reconcile
from include.reconciling import replicas_up
from include.releases import Releases
from include.settings import Settings
from include.world import World
from tests.integration.front_door_parts import HAPROXY_DIRECTORY, ContainerHttp, RunningDoor, unique_project
from tests.integration.released import Impatient, NotedAliases, wish

# A process that has imported everything, of which each deployer is a copy: else imports would be most of its life.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.integration.campaign"])
OTHER_PREDICTIONS = "f00d" * 8
STEP_SECONDS = 120
EVENTS = ("deploy", "failing deploy", "api killed", "rollback", "deployer killed", "reload")


@dataclass(frozen=True)
class Site:
    """Where a deployer of its own process finds everything."""

    settings: Settings
    directory: Path
    front_url: str
    project: Project

    def world(self) -> World:
        """The parts, real ones but for the registry."""
        settings = self.settings
        client = s3.client(settings, settings.identity("admin"))
        engine = docker.APIClient(base_url=settings.docker_url, version="auto")
        return World(
            releases=Releases(s3.Bucket(client, settings.records_bucket)),
            containers=ApiContainers(engine, settings),
            door=FrontDoor(self.directory, seen_as=HAPROXY_DIRECTORY),
            aliases=NotedAliases(),
            locked=LockedObjects(s3.Bucket(client, settings.dvc_bucket)),
            http=ContainerHttp(docker.APIClient(version="auto")),
            clock=Impatient(),
            front_url=self.front_url,
        )


def release(site: Site, run: str, version: int) -> None:
    """What a run's tasks do."""
    world = site.world()
    champion = world.releases.champion(site.project.name)
    asked = wish(run, version, int(champion.model_version) if champion else None)
    try:
        deployed = deploy(world, site.project, asked)
        verify(world, site.project, deployed.release_id)
        promote(world, site.project, deployed.release_id)
    except DeployError:
        rollback(world, site.project, asked.airflow_run_id, "a step failed")


def back(site: Site) -> None:
    """What `airlock__rollback` does."""
    put_back(site.world(), site.project, None, "manual", "the campaign")


@dataclass
class Campaign:
    """A series of events, drawn from a seed; `done` counts them."""

    site: Site
    running: RunningDoor
    draw: random.Random
    done: Counter[str] = field(default_factory=Counter)
    version: int = 1

    def begin(self) -> None:
        """Two releases, so that there is one to go back to."""
        for _ in range(2):
            self._in_a_process(release, self.site, self._run(), self._next())

    def event(self, kind: str) -> None:
        """One event, until it has ended well."""
        {
            "deploy": self._deploy,
            "failing deploy": self._failing_deploy,
            "rollback": self._rollback,
            "deployer killed": self._kill_a_deployer,
            "api killed": self._kill_an_api,
            "reload": self._reload,
        }[kind]()
        self.done[kind] += 1

    def _deploy(self) -> None:
        self._in_a_process(release, self.site, self._run(), self._next())

    def _failing_deploy(self) -> None:
        self._in_a_process(release, self.site, OTHER_PREDICTIONS, self._next())

    def _rollback(self) -> None:
        self._in_a_process(back, self.site)

    def _kill_a_deployer(self) -> None:
        process = FORKS.Process(target=release, args=(self.site, self._run(), self._next()))
        process.start()
        process.join(self.draw.uniform(0.5, 8))
        process.kill()
        process.join()
        # A person does not wait until the dead run's release is given up by itself.
        self._in_a_process(back, self.site)
        reconcile(self.site.world(), self.site.project, "campaign")

    def _kill_an_api(self) -> None:
        world, name = self.site.world(), self.site.project.name
        route = world.door.routed(name)
        assert route is not None
        victim = server_name(name, route.colour, self.draw.choice(replicas_up(world, name, route.colour)))
        # From inside, as a crash: Docker starts it again, which it does not after `docker kill`.
        execution = self.running.client.exec_create(victim, ["sh", "-c", "kill -9 -1"])["Id"]
        self.running.client.exec_start(execution)
        reconcile(world, self.site.project, "campaign")

    def _reload(self) -> None:
        self.running.configure({self.site.project.name: self.site.project.replicas, unique_project(): 2})

    def _in_a_process(self, program: Callable[..., None], *arguments: object) -> None:
        process = FORKS.Process(target=program, args=arguments)
        process.start()
        process.join(STEP_SECONDS)
        assert process.exitcode == 0, f"{program.__name__} ended with {process.exitcode}"

    def _run(self) -> str:
        return f"a{self.draw.getrandbits(124):031x}"

    def _next(self) -> int:
        self.version += 1
        time.sleep(0.002)  # a release's id has milliseconds
        return self.version
