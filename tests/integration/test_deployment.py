"""Releases on real parts: the engine behind its gate, HAProxy, S3; a stand-in for the API image."""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import pytest
from pydantic import SecretStr

from include import s3
from include.api_containers import ApiContainers
from include.buckets import ensure_buckets, writes_conditionally
from include.deployment import DeployError, Wish, deploy, promote, reconcile, rollback, verify
from include.locked_objects import LockedObjects, LockError
from include.project import Project
from include.reconcile import retire
from include.releases import Releases, StateLost
from include.settings import Settings
from include.train_result import Registered, TrainResult
from include.world import RealClock, World
from tests.integration.docker_engine import Gate, removed_volume, wait_until
from tests.integration.front_door_parts import (
    ContainerHttp,
    RunningDoor,
    build_stub_api,
    clients,
    front_door,
    unique_project,
)
from tests.integration.s3_servers import S3Server

GOLDEN = json.dumps(
    {"images": [{"name": "1.png", "content": base64.b64encode(b"1").decode(), "probabilities": {"0": 0.25, "1": 0.75}}]}
).encode()
GOLDEN_MD5 = hashlib.md5(GOLDEN, usedforsecurity=False).hexdigest()

GOOD, BETTER = "a" * 32, "b" * 32
UNHEALTHY, OTHER_PREDICTIONS = "dead" * 8, "f00d" * 8


@dataclass
class NotedAliases:
    """The registry's alias, in memory: MLflow has tests of its own."""

    champions: dict[str, str] = field(default_factory=dict)

    def champion(self, project: str) -> str | None:
        return self.champions.get(project)

    def set_champion(self, project: str, version: str) -> bool:
        self.champions[project] = version
        return True


@dataclass
class Impatient(RealClock):
    """The machine's clock, for which a wait of seconds between health checks is a short one."""

    def sleep(self, seconds: float) -> None:
        super().sleep(min(seconds, 0.5))


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
    project = Project(name=unique_project(), bucket="unused")
    gated = docker.APIClient(base_url=settings.docker_url, version="auto")
    containers, aliases = ApiContainers(gated, settings), NotedAliases()
    directory = tmp_path / "haproxy"
    with (
        removed_volume(docker_client, "airlock-weights"),
        front_door(docker_client, gate.network, directory, frozenset({project.name})) as running,
    ):
        world = World(
            releases=Releases(s3.Bucket(s3_admin, settings.records_bucket)),
            containers=containers,
            door=running.door,
            aliases=aliases,
            locked=LockedObjects(s3.Bucket(s3_admin, settings.dvc_bucket)),
            http=ContainerHttp(docker_client, gate.network),
            clock=Impatient(),
            front_url=running.url,
        )
        try:
            yield Deployment(project, world, containers, aliases, running, docker_client)
        finally:
            for found in containers.of(project.name):
                containers.remove(found.name)
            gated.close()


def wish(run: str, version: int, champion: int | None) -> Wish:
    train = TrainResult(
        run_id=run,
        dvc_hash=run,
        dvc_hash_onnx=run,
        dvc_hash_golden=GOLDEN_MD5,
        dvc_hash_split=run,
        snapshot_id="20261123T160000000Z-c71581aa",
        snapshot_md5=f"{run}.dir",
        metrics={},
        classes=("0", "1"),
    )
    return Wish(
        train=train,
        registered=Registered(run_id=run, dvc_hash=run, model_version=str(version)),
        champion_version=str(champion) if champion else None,
        airflow_run_id=f"run-{version}",
        reason="better",
    )


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
    assert deployment.names() == {"green-1"}
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
    assert deployment.names() == {"blue-1"}
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
    assert deployment.names() == {"blue-1"}


def test_what_should_serve_serves_again_after_its_container_was_removed(deployment: Deployment) -> None:
    deployment.release(GOOD, 1, None)
    deployment.client.remove_container(f"{deployment.project.name}-blue-1", force=True)
    assert "(model version 1," in reconcile(deployment.world, deployment.project)
    assert deployment.serves() == GOOD


def test_what_should_serve_serves_again_after_everything_was_stopped(deployment: Deployment) -> None:
    deployment.release(GOOD, 1, None)
    deployment.release(BETTER, 2, 1)
    deployment.client.stop(f"{deployment.project.name}-green-1", timeout=1)
    deployment.running.restart()
    reconcile(deployment.world, deployment.project)
    assert deployment.serves() == BETTER


def test_what_served_on_another_machine_is_released_again_with_the_image_of_this_one(
    deployment: Deployment, s3_admin: Any, settings: Settings
) -> None:
    name = deployment.project.name
    first = deployment.release(GOOD, 1, None)
    deployment.client.remove_container(f"{name}-blue-1", force=True)
    # As the records of another machine are: they name an image that is not here.
    record = deployment.world.releases.record(name, first).model_copy(update={"api_image_id": f"sha256:{'0' * 64}"})
    key = f"releases/{name}/{first}.json"
    s3_admin.put_object(Bucket=settings.records_bucket, Key=key, Body=record.model_dump_json().encode())
    assert "(model version 1," in reconcile(deployment.world, deployment.project)
    assert deployment.serves() == GOOD
    champion = deployment.world.releases.champion(name)
    assert champion
    assert champion.previous_release_id == first


def test_a_project_that_is_gone_loses_route_and_container_and_keeps_its_records(deployment: Deployment) -> None:
    name = deployment.project.name
    release = deployment.release(GOOD, 1, None)
    deployment.running.door.configure(frozenset())
    retire(deployment.containers, deployment.running.door, name)
    assert deployment.names() == set()
    assert deployment.world.http.get(f"{deployment.running.url}/{name}/health").status == 404
    assert deployment.world.releases.record(name, release).run_id == GOOD
    deployment.running.door.configure(frozenset({name}))
    reconcile(deployment.world, deployment.project)
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
    releases.write_state(name, state.started("20261123T160000000Z-v1"), etag)
    with pytest.raises(StateLost):
        releases.write_state(name, state.started("20261123T160000000Z-v2"), etag)
    present, etag = releases.state(name)
    dropped = present.dropped("20261123T160000000Z-v1", deployment.world.clock.now(), "test")
    releases.write_state(name, dropped, etag)
    with pytest.raises(StateLost):
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
