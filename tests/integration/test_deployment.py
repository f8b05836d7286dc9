"""Releases on real parts: the engine behind its gate, HAProxy, S3; a stand-in for the API image."""

from __future__ import annotations

import hashlib
import json
import os
import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
from pydantic import SecretStr

from include import s3
from include.api_containers import ApiContainers
from include.bake_limits import BakeLimits
from include.buckets import ensure_buckets, writes_conditionally
from include.candidates import DeployError
from include.deployment import deploy, promote, rollback, verify
from include.locked_objects import LockedObjects, LockError
from include.project import Project
from include.putting_back import put_back, reconcile
from include.reconcile import retire
from include.releases import Releases, TurnLost
from include.settings import Settings
from include.world import World
from tests.integration.campaign import EVENTS, Campaign, Site
from tests.integration.docker_engine import Gate, removed_volume, wait_until
from tests.integration.front_door_parts import (
    ContainerHttp,
    RunningDoor,
    build_stub_api,
    clients,
    front_door,
    unique_project,
)
from tests.integration.released import GOLDEN, GOLDEN_MD5, Impatient, NotedAliases, wish
from tests.integration.s3_servers import S3Server

GOOD, BETTER = "a" * 32, "b" * 32
UNHEALTHY, OTHER_PREDICTIONS = "dead" * 8, "f00d" * 8
# `make bench-swap` asks for more.
REQUESTS = int(os.environ.get("SWAP_REQUESTS", "20000"))
ROUNDS = int(os.environ.get("SWAP_ROUNDS", "1"))
SEED = int(os.environ.get("SWAP_SEED", "20000"))
# Good until they have traffic.
FAILING, SLOW, CRASHING = "fa11" * 8, "510" * 10 + "00", "c4a5" * 8


@dataclass
class Deployment:
    """A project on real parts."""

    project: Project
    world: World
    containers: ApiContainers
    aliases: NotedAliases
    running: RunningDoor
    client: docker.APIClient

    def release(self, run: str, version: int, champion: int | None) -> str:
        """What a run's tasks do when all goes well; returns the release."""
        deployed = deploy(self.world, self.project, wish(run, version, champion))
        verify(self.world, self.project, deployed.release_id)
        promote(self.world, self.project, deployed.release_id)
        return deployed.release_id

    def serves(self) -> str:
        """The run that answers a client now."""
        answer = self.world.http.get(f"{self.running.url}/{self.project.name}/metadata")
        assert answer.status == 200, answer
        return str(json.loads(answer.body)["run_id"])

    def names(self) -> set[str]:
        """The names of the project's containers."""
        return {found.name.removeprefix(f"{self.project.name}-") for found in self.containers.of(self.project.name)}


@pytest.fixture(scope="module")
def settings(
    s3_server: S3Server, gate: Gate, docker_client: docker.APIClient, tmp_path_factory: pytest.TempPathFactory
) -> Settings:
    """A deployment's settings, on the tests' servers and the tests' network."""
    images = tmp_path_factory.mktemp("images") / "images.json"
    images.write_text(json.dumps({"trainer": {}, "api": build_stub_api(docker_client)}))
    keys = {
        f"s3_{role}_{name}": value
        for role in ("airflow", "trainer", "api", "admin")
        for name, value in (
            ("access_key_id", s3_server.access_key_id),
            ("secret_access_key", SecretStr(s3_server.secret_access_key)),
        )
    }
    return Settings.model_validate(
        {
            "s3_endpoint_url": s3_server.endpoint_url,
            "s3_bucket_prefix": f"d{uuid.uuid4().hex[:6]}-",
            "mlflow_url": "http://mlflow:5000",
            "mlflow_public_url": "http://127.0.0.1:5000",
            "docker_url": gate.url,
            "front_url": "http://haproxy:8000",
            "images_file": images,
            "network": gate.network,
            **keys,
        }
    )


@pytest.fixture(scope="module")
def s3_admin(settings: Settings) -> Any:
    """A client, with the deployment's buckets made."""
    client = s3.client(settings, settings.identity("admin"))
    assert ensure_buckets(client, [settings.records_bucket, settings.dvc_bucket])
    assert not ensure_buckets(client, [settings.records_bucket, settings.dvc_bucket]), "made once"
    key = f"models/files/md5/{GOLDEN_MD5[:2]}/{GOLDEN_MD5[2:]}"
    client.put_object(Bucket=settings.dvc_bucket, Key=key, Body=GOLDEN)
    return client


@pytest.fixture
def deployment(
    settings: Settings, s3_admin: Any, gate: Gate, docker_client: docker.APIClient, tmp_path: Path
) -> Iterator[Deployment]:
    """A project without a release, and its own HAProxy."""
    project = Project(name=unique_project(), bucket="unused", bake=BakeLimits(seconds=2))
    gated = docker.APIClient(base_url=settings.docker_url, version="auto")
    containers, aliases = ApiContainers(gated, settings), NotedAliases()
    directory = tmp_path / "haproxy"
    with (
        removed_volume(docker_client, "airlock-weights"),
        front_door(docker_client, gate.network, directory, {project.name: project.replicas}) as running,
    ):
        world = World(
            releases=Releases(s3.Bucket(s3_admin, settings.records_bucket)),
            containers=containers,
            door=running.door,
            aliases=aliases,
            locked=LockedObjects(s3.Bucket(s3_admin, settings.dvc_bucket)),
            http=ContainerHttp(docker_client),
            clock=Impatient(),
            front_url=running.url,
        )
        try:
            yield Deployment(project, world, containers, aliases, running, docker_client)
        finally:
            for found in containers.of(project.name):
                containers.remove(found.name)
            gated.close()


def test_a_better_model_takes_over_without_a_failed_request(deployment: Deployment) -> None:
    deployment.release(GOOD, 1, None)
    assert deployment.serves() == GOOD
    with clients(deployment.running.url, deployment.project.name) as asked:
        wait_until(lambda: asked.runs[GOOD] > 50)
        deployment.release(BETTER, 2, 1)
        seen = asked.runs[BETTER]
        wait_until(lambda: asked.runs[BETTER] > seen + 100)
    assert asked.failures == []
    assert set(asked.runs) == {GOOD, BETTER}
    assert deployment.names() == {"green-1", "green-2"}
    assert deployment.aliases.champions == {deployment.project.name: "2"}


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (
            UNHEALTHY,
            r"not healthy after 20 attempts.*/health: status 503 after .* s .*last log lines.*serving the run dead",
        ),
        (OTHER_PREDICTIONS, r"/predict: status 200 after .* s .*golden picture 1\.png has the probability 0\.9 of '0'"),
    ],
)
def test_a_bad_container_leaves_the_old_one_serving_throughout(deployment: Deployment, run: str, said: str) -> None:
    deployment.release(GOOD, 1, None)
    with clients(deployment.running.url, deployment.project.name) as asked:
        wait_until(lambda: asked.runs[GOOD] > 20)
        with pytest.raises(DeployError, match=f"(?s){said}"):
            deployment.release(run, 2, 1)
        seen = asked.runs[GOOD]
        wait_until(lambda: asked.runs[GOOD] > seen + 20)
    assert asked.failures == []
    assert set(asked.runs) == {GOOD}
    assert deployment.names() == {"blue-1", "blue-2"}
    assert deployment.aliases.champions == {deployment.project.name: "1"}


def test_a_release_refused_after_the_switch_gives_the_traffic_back(deployment: Deployment) -> None:
    deployment.release(GOOD, 1, None)
    with clients(deployment.running.url, deployment.project.name) as asked:
        deploy(deployment.world, deployment.project, wish(BETTER, 2, 1))
        wait_until(lambda: asked.runs[BETTER] > 20)
        said = rollback(deployment.world, deployment.project, "run-2", "verify failed")
        seen = asked.runs[GOOD]
        wait_until(lambda: asked.runs[GOOD] > seen + 50)
    assert "(model version 1," in said
    assert asked.failures == []
    assert deployment.serves() == GOOD
    assert deployment.names() == {"blue-1", "blue-2"}


def test_the_release_before_is_put_back_without_a_failed_request(deployment: Deployment) -> None:
    deployment.release(GOOD, 1, None)
    deployment.release(BETTER, 2, 1)
    with clients(deployment.running.url, deployment.project.name) as asked:
        wait_until(lambda: asked.runs[BETTER] > 50)
        said = put_back(deployment.world, deployment.project, None, "manual__1", "ann")
        seen = asked.runs[GOOD]
        wait_until(lambda: asked.runs[GOOD] > seen + 50)
    assert "(model version 1," in said
    assert asked.failures == []
    assert deployment.names() == {"blue-1", "blue-2"}
    assert deployment.aliases.champions == {deployment.project.name: "1"}


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (FAILING, r"requests failed, p99 .*: more than .*; the release that served: 0 of "),
        (SLOW, r"p99 \d+ ms: the limit is \d+ ms; the release that served: "),
        # Which of the two looks first: the watch, or the check through the front door, where the old release stands in.
        (CRASHING, r"its containers crashed|cannot be watched|run_id is '(a+)', expected '(c4a5)+'"),
    ],
)
def test_worse_under_traffic_gives_it_back_by_itself_with_the_figures(
    deployment: Deployment, run: str, said: str
) -> None:
    deployment.release(GOOD, 1, None)
    deployment.project = deployment.project.model_copy(update={"bake": BakeLimits(seconds=60, min_requests=50)})
    with clients(deployment.running.url, deployment.project.name) as asked:
        wait_until(lambda: asked.runs[GOOD] > 100)
        with pytest.raises(DeployError, match=f"(?s){said}"):
            deployment.release(run, 2, 1)
        seen = asked.runs[GOOD]
        wait_until(lambda: asked.runs[GOOD] > seen + 50)
    assert deployment.names() == {"blue-1", "blue-2"}
    assert deployment.serves() == GOOD


def test_what_should_serve_serves_again_after_its_container_was_removed(deployment: Deployment) -> None:
    deployment.release(GOOD, 1, None)
    deployment.client.remove_container(f"{deployment.project.name}-blue-1", force=True)
    assert "(model version 1," in reconcile(deployment.world, deployment.project, "test")
    assert deployment.serves() == GOOD


def test_what_should_serve_serves_again_after_everything_was_stopped(deployment: Deployment) -> None:
    deployment.release(GOOD, 1, None)
    deployment.release(BETTER, 2, 1)
    for number in (1, 2):
        deployment.client.stop(f"{deployment.project.name}-green-{number}", timeout=1)
    deployment.running.restart()
    reconcile(deployment.world, deployment.project, "test")
    assert deployment.serves() == BETTER


def test_what_served_on_another_machine_is_released_again_with_the_image_of_this_one(
    deployment: Deployment, s3_admin: Any, settings: Settings
) -> None:
    name = deployment.project.name
    first = deployment.release(GOOD, 1, None)
    for number in (1, 2):
        deployment.client.remove_container(f"{name}-blue-{number}", force=True)
    # As the records of another machine are: they name an image that is not here.
    record = deployment.world.releases.record(name, first).model_copy(update={"api_image_id": f"sha256:{'0' * 64}"})
    key = f"releases/{name}/{first}.json"
    s3_admin.put_object(Bucket=settings.records_bucket, Key=key, Body=record.model_dump_json().encode())
    assert "(model version 1," in reconcile(deployment.world, deployment.project, "test")
    assert deployment.serves() == GOOD
    champion = deployment.world.releases.champion(name)
    assert champion
    assert champion.previous_release_id == first


def test_a_project_that_is_gone_loses_route_and_container_and_keeps_its_records(deployment: Deployment) -> None:
    name = deployment.project.name
    release = deployment.release(GOOD, 1, None)
    deployment.running.configure({})
    retire(deployment.world, name)
    assert deployment.names() == set()
    assert deployment.world.http.get(f"{deployment.running.url}/{name}/health").status == 404
    assert deployment.world.releases.record(name, release).run_id == GOOD
    deployment.running.configure({name: 2})
    reconcile(deployment.world, deployment.project, "test")
    assert deployment.serves() == GOOD, "the file is back, and so is what served"


def test_containers_have_no_rights_and_limits(deployment: Deployment) -> None:
    deployment.release(GOOD, 1, None)
    found = deployment.client.inspect_container(f"{deployment.project.name}-blue-1")
    host = found["HostConfig"]
    assert found["Config"]["User"] == "10001:10001"
    assert (host["CapDrop"], host["ReadonlyRootfs"], host["Privileged"], host["Init"]) == (["ALL"], True, False, True)
    assert host["SecurityOpt"][0].startswith("no-new-privileges")
    assert host["Memory"] == deployment.project.api_memory_bytes
    assert 0 < host["PidsLimit"] <= 512
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert [(mount["Name"], mount["Destination"]) for mount in found["Mounts"]] == [("airlock-weights", "/weights")]
    assert found["Config"]["Image"] == deployment.client.inspect_image("airlock-test-stub-api:latest")["Id"]


def test_of_two_writers_of_a_state_one_wins(deployment: Deployment) -> None:
    releases, name = deployment.world.releases, deployment.project.name
    state, etag = releases.state(name)
    now = deployment.world.clock.now()
    releases.write_state(name, state.started("20261123T160000000Z-v1", now), etag)
    with pytest.raises(TurnLost):
        releases.write_state(name, state.started("20261123T160000000Z-v2", now), etag)
    present, etag = releases.state(name)
    dropped = present.dropped("20261123T160000000Z-v1", now, "test")
    releases.write_state(name, dropped, etag)
    with pytest.raises(TurnLost):
        releases.write_state(name, present, etag)


def test_an_altered_or_missing_object_is_named(settings: Settings, s3_admin: Any) -> None:
    locked = LockedObjects(s3.Bucket(s3_admin, settings.dvc_bucket))
    locked.verify("golden predictions", GOLDEN_MD5)
    with pytest.raises(LockError, match=f"the weights object s3://.*{GOOD[2:]} is missing from the store"):
        locked.verify("weights", GOOD)
    md5 = hashlib.md5(b"weights", usedforsecurity=False).hexdigest()
    s3_admin.put_object(Bucket=settings.dvc_bucket, Key=f"models/files/md5/{md5[:2]}/{md5[2:]}", Body=b"other weights")
    with pytest.raises(LockError, match="the weights object was altered in the store"):
        locked.verify("weights", md5)


def test_conditional_writes_are_found_by_trying(settings: Settings, s3_admin: Any, plain_s3_server: S3Server) -> None:
    assert writes_conditionally(s3.Bucket(s3_admin, settings.records_bucket))
    plain = plain_s3_server.client()
    ensure_buckets(plain, ["probe-bucket"])
    assert not writes_conditionally(s3.Bucket(plain, "probe-bucket"))


def test_no_request_of_twenty_thousand_fails_whatever_happens(
    deployment: Deployment, settings: Settings, tmp_path: Path
) -> None:
    site = Site(settings, tmp_path / "haproxy", deployment.running.url, deployment.project)
    campaign = Campaign(site, deployment.running, random.Random(SEED))
    campaign.begin()
    with clients(deployment.running.url, deployment.project.name, count=8) as asked:
        while campaign.done.total() < ROUNDS * len(EVENTS) or asked.total() < REQUESTS:
            kind = EVENTS[campaign.done.total() % len(EVENTS)]
            campaign.event(kind)
            assert asked.failures == [], f"in {kind}, after {dict(campaign.done)}: {deployment.running.log()}"
    assert asked.failures == []
    print(f"0 of {asked.total():,} requests failed through {dict(campaign.done)} (seed {SEED})")
