"""What `make up` sets up on an S3 server: buckets, the front door's files, and what it says of what it cannot do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

from include import s3
from include.project import Mistake, Project, ProjectError, Projects
from include.releases import Releases, Serving, State
from include.s3 import Bucket, StorageError
from include.settings import S3Identity, Settings
from include.setup import set_up
from tests.integration.deployment_settings import deployment_settings
from tests.integration.embedded_s3 import EmbeddedS3, embedded_s3
from tests.integration.s3_servers import S3Server

PROJECTS = Projects({"digits": Project(name="digits", bucket="digits-train")}, {})
MISTAKE = ProjectError([Mistake(Path("digits.yaml"), 3, "epochs: too many")])
BUCKETS = ("airlock", "digits-train", "dvc", "mlflow")
NO_CONDITIONS = "does not write conditionally"

SettingsOn = Callable[[S3Server], Settings]


@pytest.fixture
def settings_on(tmp_path: Path) -> SettingsOn:
    """A deployment's settings on a server, with a bucket prefix and a front door's folder of its own."""

    def settings(server: S3Server) -> Settings:
        keys = {"admin": S3Identity(server.access_key_id, server.secret_access_key)}
        return deployment_settings(server.endpoint_url, keys, haproxy_dir=tmp_path)

    return settings


def buckets(settings: Settings) -> list[str]:
    """The deployment's buckets on the server, without its prefix."""
    client, prefix = s3.client(settings, settings.identity("admin")), settings.s3_bucket_prefix
    names = [str(bucket["Name"]) for bucket in client.list_buckets()["Buckets"]]
    return sorted(name.removeprefix(prefix) for name in names if name.startswith(prefix))


def records(settings: Settings) -> Bucket:
    return Bucket(s3.client(settings, settings.identity("admin")), settings.records_bucket)


def front_door_files(settings: Settings) -> dict[str, str]:
    return {path.name: path.read_text() for path in settings.haproxy_dir.iterdir()}


def test_every_bucket_is_made_with_the_prefix_and_each_project_may_be_routed_to(
    s3_server: S3Server, settings_on: SettingsOn
) -> None:
    settings = settings_on(s3_server)
    set_up(settings, PROJECTS)
    assert buckets(settings) == sorted(BUCKETS)
    assert "backend digits_blue" in front_door_files(settings)["haproxy.cfg"]
    assert records(settings).keys("") == [], "the probe leaves nothing behind"


def test_a_server_without_conditional_writes_is_set_up_and_told_of(
    plain_s3_server: S3Server, settings_on: SettingsOn, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_on(plain_s3_server)
    set_up(settings, PROJECTS)
    assert buckets(settings) == sorted(BUCKETS)
    (warning,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert NO_CONDITIONS in warning
    assert "keep the pools `deploy` and `snapshot` at one slot" in warning


def test_a_server_with_conditional_writes_is_not_warned_of(
    s3_server: S3Server, settings_on: SettingsOn, caplog: pytest.LogCaptureFixture
) -> None:
    set_up(settings_on(s3_server), PROJECTS)
    assert NO_CONDITIONS not in caplog.text


@pytest.mark.parametrize("server", ["s3_server", "plain_s3_server"])
def test_set_up_again_changes_nothing(
    server: str, request: pytest.FixtureRequest, settings_on: SettingsOn, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    settings = settings_on(request.getfixturevalue(server))
    set_up(settings, PROJECTS)
    assert caplog.text.count("created the bucket") == len(BUCKETS)
    serving = State(serving=Serving(release_id="20261123T160000000Z-v1", colour="green"))
    Releases(records(settings)).write_state("digits", serving, None)
    set_up(settings, PROJECTS)
    files, objects = front_door_files(settings), records(settings).keys("")
    assert files["active.map"] == "digits digits_green\n"
    caplog.clear()
    set_up(settings, PROJECTS)
    assert front_door_files(settings) == files
    assert records(settings).keys("") == objects == ["releases/digits/state.json"]
    assert buckets(settings) == sorted(BUCKETS)
    assert "created the bucket" not in caplog.text


def test_a_broken_project_is_named_and_keeps_its_route_while_the_others_are_set_up(
    s3_server: S3Server, settings_on: SettingsOn, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_on(s3_server)
    set_up(settings, PROJECTS)
    serving = State(serving=Serving(release_id="20261123T160000000Z-v1", colour="blue"))
    Releases(records(settings)).write_state("digits", serving, None)
    broken = Projects({"shapes": Project(name="shapes", bucket="shapes-train")}, {"digits": MISTAKE})
    set_up(settings, broken)
    assert "digits.yaml:3: epochs: too many" in caplog.text
    assert front_door_files(settings)["active.map"] == "digits digits_blue\n"
    assert "shapes-train" in buckets(settings)


@pytest.fixture(scope="module")
def guarded(docker_client: docker.APIClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedS3]:
    """A server where `guest` may read, list and write everywhere, and make no bucket."""
    more = {"guest": ["Read", "List", "Write"]}
    with embedded_s3(docker_client, tmp_path_factory.mktemp("guarded"), ["digits-train"], more) as server:
        yield server


def as_admin(server: EmbeddedS3, role: str, directory: Path) -> Settings:
    """The settings of a set-up job that was given a role's keys."""
    keys = {"admin": server.keys[role]}
    return deployment_settings(server.settings.s3_endpoint_url, keys, haproxy_dir=directory)


def test_an_identity_that_may_make_no_bucket_is_told_which_are_missing_and_goes_on_when_they_are_there(
    guarded: EmbeddedS3, tmp_path: Path
) -> None:
    settings = as_admin(guarded, "guest", tmp_path)
    for name in ("airlock", "dvc"):
        guarded.client("admin").create_bucket(Bucket=settings.bucket(name))
    with pytest.raises(StorageError) as caught:
        set_up(settings, PROJECTS)
    assert str(caught.value).splitlines() == [
        f"bucket {settings.bucket(name)} is not there and may not be created (AccessDenied): "
        "create it, or allow the set-up identity to"
        for name in ("mlflow", "digits-train")
    ]
    for name in ("mlflow", "digits-train"):
        guarded.client("admin").create_bucket(Bucket=settings.bucket(name))
    set_up(settings, PROJECTS)
    assert "backend digits_blue" in front_door_files(settings)["haproxy.cfg"]


def test_an_identity_that_cannot_see_a_bucket_is_told_that_it_may_be_hidden(
    guarded: EmbeddedS3, tmp_path: Path
) -> None:
    settings = as_admin(guarded, "api", tmp_path)
    guarded.client("admin").create_bucket(Bucket=settings.records_bucket)
    with pytest.raises(StorageError, match=f"{settings.records_bucket} is missing, or hidden from the set-up identity"):
        set_up(settings, PROJECTS)
