"""Real S3 servers for the tests: SeaweedFS, and the MinIO-derived gateway of JuiceFS."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.integration.ports import free_ports
from tests.tools.environments import executable

START_SECONDS = 90

# Identities of SeaweedFS beside its administrator, by what they may do in the buckets of a `dataset_lab.Lab`.
OWN_BUCKETS = [f"{verb}:{bucket}-*" for verb in ("Read", "List", "Write") for bucket in ("airlock", "dvc")]
IDENTITIES = {
    "no-train-bucket": OWN_BUCKETS,
    "train-bucket-to-list-only": [*OWN_BUCKETS, "List:train-*"],
    "dvc-bucket-to-read-only": ["Read:train-*", "List:train-*", *(one for one in OWN_BUCKETS if one != "Write:dvc-*")],
}
SECRET = "test-secret-of-seaweedfs"


@dataclass(frozen=True)
class S3Server:
    """A running server and the keys of its administrator."""

    name: str
    endpoint_url: str
    access_key_id: str
    secret_access_key: str
    region: str = "us-east-1"
    directory: Path | None = None

    def known_as(self, access_key_id: str) -> S3Server:
        """The same server for another identity with the same secret."""
        return replace(self, access_key_id=access_key_id)

    def client(self) -> Any:
        """A boto3 client of it."""
        config = Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 2},
            connect_timeout=5,
            read_timeout=60,
            max_pool_connections=32,
        )
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
            region_name=self.region,
            config=config,
        )


@contextmanager
def seaweedfs(directory: Path) -> Iterator[S3Server]:
    """SeaweedFS with its data below `directory`; killed at the end, since it takes half a minute to stop politely."""
    s3, s3_grpc, master, master_grpc, volume, volume_grpc, filer, filer_grpc = free_ports(8)
    data = directory / "data"
    data.mkdir(parents=True)
    server = S3Server("seaweedfs", f"http://127.0.0.1:{s3}", "test-admin", SECRET)
    identities = directory / "identities.json"
    identities.write_text(json.dumps({"identities": _identities({server.access_key_id: ["Admin"], **IDENTITIES})}))
    command = [
        str(executable("requirements", "weed")),
        f"-logdir={directory}",
        "server",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-master.port={master}",
        f"-master.port.grpc={master_grpc}",
        f"-volume.port={volume}",
        f"-volume.port.grpc={volume_grpc}",
        "-filer",
        f"-filer.port={filer}",
        f"-filer.port.grpc={filer_grpc}",
        "-s3",
        f"-s3.port={s3}",
        f"-s3.config={identities}",
        f"-s3.port.grpc={s3_grpc}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.volumeSizeLimitMB=64",
        "-volume.max=10000",  # by default as many as the disk has room for, were all of them full
    ]
    # One volume per bucket at a time: the default of seven makes each new bucket slow.
    growth = {"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}
    with _running(server, command, growth, directory / "out.log"):
        yield server


def _identities(rights: Mapping[str, list[str]]) -> list[dict[str, object]]:
    return [
        {"name": name, "credentials": [{"accessKey": name, "secretKey": SECRET}], "actions": actions}
        for name, actions in rights.items()
    ]


@contextmanager
def juicefs(directory: Path, etags: Literal["md5", "none"] = "md5") -> Iterator[S3Server]:
    """JuiceFS' gateway (MinIO's code) on a local directory: no conditional writes, and no ETags where so asked."""
    port, metrics = free_ports(2)
    program = str(executable("requirements", "juicefs"))
    meta = f"sqlite3://{directory}/meta.db"
    store = directory / "store"
    store.mkdir(parents=True)
    log = directory / "out.log"
    with log.open("wb") as out:
        command = [program, "format", "--storage", "file", "--bucket", f"{store}/", "--trash-days", "0", meta, "tests"]
        subprocess.run(command, check=True, stdout=out, stderr=out)
    url = f"http://127.0.0.1:{port}"
    server = S3Server("juicefs", url, "test-admin", "test-secret-of-juicefs", directory=directory)
    command = [
        program,
        "gateway",
        "--multi-buckets",
        *(["--keep-etag"] if etags == "md5" else []),
        "--no-usage-report",
        f"--metrics=127.0.0.1:{metrics}",
    ]
    command += [f"--cache-dir={directory}/cache", meta, f"127.0.0.1:{port}"]
    keys = {"MINIO_ROOT_USER": server.access_key_id, "MINIO_ROOT_PASSWORD": server.secret_access_key}
    with _running(server, command, keys, log):
        yield server


def falsify_etags(server: S3Server) -> None:
    """Give every object of a JuiceFS server an ETag that looks like an md5 and is none, as encryption with KMS does."""
    assert server.directory
    with closing(sqlite3.connect(server.directory / "meta.db", timeout=30)) as meta, meta:
        meta.create_function("reversed", 1, lambda etag: bytes(etag)[::-1])
        meta.execute("UPDATE jfs_xattr SET value = reversed(value) WHERE name = 's3-etag'")


@contextmanager
def _running(server: S3Server, command: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    with log.open("ab") as out:
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=out, stderr=out)
    try:
        _wait_until_it_answers(server, process, log)
        yield
    finally:
        process.kill()
        process.wait()


def _wait_until_it_answers(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    client = server.client()
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with suppress(ClientError):  # it is there since the last round
                client.create_bucket(Bucket="is-it-up")
            client.put_object(Bucket="is-it-up", Key="yes", Body=b"yes")
            return
        except (ClientError, BotoCoreError) as cause:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{server.name} did not start: {log.read_text()[-2000:]}") from cause
            time.sleep(0.3)  # the server has no event to wait for
