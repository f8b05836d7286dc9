"""The table of docs/security.md on the embedded S3 server: what each identity may, and that it may nothing else."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import boto3
import docker
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from include import s3_identities
from tests.integration.docker_engine import wait_until
from tests.integration.embedded_s3 import EmbeddedS3, embedded_s3

ROLES = ("airflow", "trainer", "api", "mlflow")
REFUSED = {"AccessDenied", "403"}
S3_PORT, GRPC_PORT = 9000, 19000

# What lies where, by what it is; the last two are traps: names that begin as those that a role has rights to.
PLACES = {
    "picture": ("digits-train", "7/1.png"),
    "snapshot": ("airlock", "snapshots/digits/1.json"),
    "release": ("airlock", "releases/digits/state.json"),
    "dataset": ("dvc", "data/files/md5/aa/bb"),
    "weights": ("dvc", "models/files/md5/cc/dd"),
    "artifact": ("mlflow", "1/run/artifacts/plot.png"),
    "neighbour of the pictures": ("digits-train-2", "7/1.png"),
    "neighbour of the weights": ("dvc", "models-2/files/md5/cc/dd"),
}
ALL = {"list", "read", "write", "delete"}
# docs/security.md, row by row. Who may list one place of a bucket may list all.
MAY: dict[str, dict[str, set[str]]] = {
    "admin": dict.fromkeys(PLACES, ALL),
    "airflow": {"picture": {"list"}, "snapshot": ALL, "release": ALL, "weights": {"read"}},
    "trainer": {
        "picture": {"list", "read"},
        "snapshot": ALL,
        "release": {"list"},
        "dataset": ALL,
        "weights": ALL,
        "neighbour of the weights": ALL,
    },
    "api": {"weights": {"read"}},
    "mlflow": {"artifact": ALL},
    "nobody": {},
}


@dataclass(frozen=True)
class Stored:
    """The server with one object in each place."""

    server: EmbeddedS3

    def bucket(self, name: str) -> str:
        return self.server.settings.bucket(name)

    def client(self, role: str) -> Any:
        if role != "nobody":
            return self.server.client(role)
        config = Config(signature_version=UNSIGNED, s3={"addressing_style": "path"})
        return boto3.client(
            "s3", endpoint_url=self.server.settings.s3_endpoint_url, region_name="us-east-1", config=config
        )

    def may(self, role: str, verb: str, place: str) -> bool:
        """Whether the server lets a role do it."""
        client, name, key = self.client(role), self.bucket(PLACES[place][0]), PLACES[place][1]
        calls: dict[str, Callable[[], Any]] = {
            "list": lambda: client.list_objects_v2(Bucket=name),
            "read": lambda: client.get_object(Bucket=name, Key=key),
            "write": lambda: client.put_object(Bucket=name, Key=key, Body=b"content"),
            "delete": lambda: client.delete_object(Bucket=name, Key=f"{key}.old"),
        }
        return not refused(calls[verb])


def refused(call: Callable[[], Any]) -> bool:
    """Whether the server denies a call; any other error is one."""
    try:
        call()
    except ClientError as error:
        if error.response["Error"]["Code"] not in REFUSED:
            raise
        return True
    return False


@pytest.fixture(scope="module")
def stored(docker_client: docker.APIClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    """A running embedded server with the identities of one project."""
    with embedded_s3(docker_client, tmp_path_factory.mktemp("embedded"), ["digits-train"]) as server:
        stored = Stored(server)
        admin = stored.client("admin")
        for bucket in {bucket for bucket, _ in PLACES.values()}:
            admin.create_bucket(Bucket=stored.bucket(bucket))
        for bucket, key in PLACES.values():
            admin.put_object(Bucket=stored.bucket(bucket), Key=key, Body=b"content")
        yield stored


@pytest.mark.parametrize("role", MAY)
def test_an_identity_may_what_the_table_says_and_nothing_else(stored: Stored, role: str) -> None:
    may = {place: {verb for verb in ALL if stored.may(role, verb, place)} for place in PLACES}
    assert may == {place: MAY[role].get(place, set()) for place in PLACES}


@pytest.mark.parametrize("role", ROLES)
def test_no_identity_but_the_administrator_makes_removes_or_opens_a_bucket(stored: Stored, role: str) -> None:
    client = stored.client(role)
    for name in ("airlock", "dvc", "mlflow", "digits-train"):
        there = {"Bucket": stored.bucket(name)}
        assert refused(partial(client.delete_bucket, **there))
        assert refused(partial(client.put_bucket_policy, **there, Policy="{}"))
        assert refused(partial(client.put_bucket_acl, **there, ACL="public-read"))
    new = {"Bucket": stored.bucket("new")}
    assert refused(partial(client.create_bucket, **new))
    assert refused(partial(client.put_object, **new, Key="makes-its-bucket", Body=b""))


def test_the_trainer_cannot_make_a_rule_that_would_delete_releases(stored: Stored) -> None:
    trainer, bucket = stored.client("trainer"), stored.bucket("airlock")
    rule = {"ID": "all", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}
    rules = {"Rules": [rule]}
    assert refused(lambda: trainer.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=rules))


def test_a_copy_needs_the_right_to_read_what_is_copied(stored: Stored) -> None:
    airflow, bucket = stored.client("airflow"), stored.bucket("airlock")
    picture = {"Bucket": stored.bucket("digits-train"), "Key": PLACES["picture"][1]}
    assert refused(lambda: airflow.copy_object(Bucket=bucket, Key="releases/copy", CopySource=picture))
    upload = airflow.create_multipart_upload(Bucket=bucket, Key="releases/copy")["UploadId"]
    part = {"Bucket": bucket, "Key": "releases/copy", "UploadId": upload, "PartNumber": 1}
    assert refused(lambda: airflow.upload_part_copy(**part, CopySource=picture))
    # The trainer may do both: this is how a snapshot is pinned.
    stored.client("trainer").copy_object(Bucket=stored.bucket("dvc"), Key="data/files/md5/ee/ff", CopySource=picture)


def test_a_key_with_dots_leads_to_no_other_place(stored: Stored) -> None:
    params = {"Bucket": stored.bucket("dvc"), "Key": f"models/../{PLACES['dataset'][1]}"}
    url = urlsplit(stored.client("api").generate_presigned_url("get_object", Params=params))
    connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=20)
    connection.request("GET", f"{url.path}?{url.query}")  # as it is; other clients take the dots away
    assert connection.getresponse().status in {400, 403}
    connection.close()


def test_a_list_of_deletions_is_judged_key_by_key(stored: Stored) -> None:
    keys = [PLACES["release"][1], "snapshots/digits/old.json", f"snapshots/../{PLACES['release'][1]}"]
    answer = stored.client("trainer").delete_objects(
        Bucket=stored.bucket("airlock"), Delete={"Objects": [{"Key": key} for key in keys]}
    )
    assert {error["Key"] for error in answer["Errors"]} == {keys[0], keys[2]}
    assert {deleted["Key"] for deleted in answer["Deleted"]} == {keys[1]}
    assert stored.client("admin").get_object(Bucket=stored.bucket("airlock"), Key=keys[0])["Body"].read() == b"content"


@pytest.mark.parametrize("role", ["admin", *ROLES])
def test_no_identity_gets_itself_more_keys(stored: Stored, role: str) -> None:
    keys = stored.server.keys[role]
    iam = boto3.client(
        "iam",
        endpoint_url=stored.server.settings.s3_endpoint_url,
        region_name="us-east-1",
        aws_access_key_id=keys.access_key_id,
        aws_secret_access_key=keys.secret_access_key,
    )
    with pytest.raises(ClientError, match="disabled on this server"):
        iam.create_access_key(UserName=role)


def test_a_new_projects_bucket_is_the_trainers_after_the_signal_that_make_up_sends(stored: Stored) -> None:
    server = stored.server
    bucket = stored.bucket("shapes-train")
    stored.client("admin").put_object(Bucket=bucket, Key="square/1.png", Body=b"content")
    trainer = stored.client("trainer")
    assert refused(lambda: trainer.get_object(Bucket=bucket, Key="square/1.png"))
    projects = [stored.bucket("digits-train"), bucket]
    server.write_identities(s3_identities.actions(server.settings, projects))
    server.engine.kill(server.container_id, "SIGHUP")
    wait_until(lambda: not refused(lambda: trainer.get_object(Bucket=bucket, Key="square/1.png")))


def reachable_ports(server: EmbeddedS3) -> set[int]:
    """The ports that its processes listen on, other than on loopback."""
    rows = [row.split() for row in server.said("cat", "/proc/net/tcp", "/proc/net/tcp6").splitlines()]
    listening = [row[1].split(":") for row in rows if row[3] == "0A"]
    return {int(port, 16) for address, port in listening if address != "0100007F"}


def takes_grpc(peer: socket.socket) -> bool:
    """Whether the other side goes on after the first words of a gRPC client: it says its HTTP/2 settings, too."""
    settings = bytes(3) + b"\x04" + bytes(5)
    try:
        peer.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)
        return peer.recv(9)[3:4] == settings[3:4]
    except OSError:
        return False


def test_nobody_on_the_network_reaches_more_of_the_server_than_its_s3_port(stored: Stored) -> None:
    server = stored.server
    assert reachable_ports(server) == {S3_PORT, GRPC_PORT}
    # Whoever got through could announce an administrator (`SeaweedS3IamCache/PutIdentity`), or delete any object.
    inner = (server.address(), GRPC_PORT)
    with socket.create_connection(inner, timeout=20) as plain:
        assert not takes_grpc(plain)
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    anybody.set_alpn_protocols(["h2"])
    with socket.create_connection(inner, timeout=20) as plain, anybody.wrap_socket(plain) as encrypted:
        assert not takes_grpc(encrypted)
