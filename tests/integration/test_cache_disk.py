"""The host's cache on disks that are full or cannot be written, in the trainer's image."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import docker
import pytest
from docker.errors import ContainerError
from docker.models.volumes import Volume

from tests.integration.dataset_lab import Lab, md5
from tests.integration.s3_servers import S3Server
from tests.integration.trainer_container import IMAGE

BODIES = [hashlib.sha256(str(number).encode()).digest() * 4096 for number in range(128)]  # 16 MiB in all

FETCH = """
import logging, sys
from pathlib import Path
from trainer import cache
from trainer.errors import TrainerError
from trainer.s3 import S3Access
logging.basicConfig(level=logging.INFO)
endpoint, key, secret, bucket, spare, *sizes = sys.argv[1:]
cache.SPARE_BYTES = int(spare)
root = Path("/cache")
wanted = dict((md5, int(size)) for md5, size in (each.split("=") for each in sizes))
try:
    print("outcome", cache.Cache(root).fetch(S3Access(endpoint, key, secret), bucket, wanted))
except TrainerError as error:
    print("outcome", error.kind, error)
whole = [path for path in (root / "files").rglob("*") if path.is_file()]
for path in whole:
    assert path.stat().st_size == wanted[path.parent.name + path.name], path
print("whole", len(whole), "left over", len(list((root / "tmp").glob("*/*/*"))))
"""


@pytest.fixture(scope="module")
def lab(s3_server: S3Server) -> Lab:
    """A DVC remote with 128 contents of 128 KiB."""
    lab = Lab.on(s3_server)
    lab.pin(*BODIES)
    return lab


@pytest.fixture
def volume() -> Iterator[Volume]:
    made = docker.from_env().volumes.create()
    yield made
    made.remove(force=True)


def fetched(lab: Lab, count: int, spare_bytes: int, **where: object) -> str:
    server = lab.server
    words = [server.endpoint_url, server.access_key_id, server.secret_access_key, lab.dvc, str(spare_bytes)]
    sizes = [f"{md5(body)}={len(body)}" for body in BODIES[:count]]
    try:
        output: bytes = docker.from_env().containers.run(
            IMAGE, ["-c", FETCH, *words, *sizes], entrypoint="python", remove=True, network_mode="host",
            read_only=True, stderr=True, **where,
        )  # fmt: skip
    except ContainerError as error:
        raise AssertionError(error.stderr.decode()) from error
    return output.decode()


def test_a_disk_that_fills_up_in_the_middle_of_a_fetch_keeps_what_is_whole(lab: Lab) -> None:
    output = fetched(lab, 128, -(1 << 40), tmpfs={"/cache": "size=8m,uid=10001,gid=10001"})
    assert "outcome unavailable the cache /cache cannot be written: No space left on device" in output
    count = int(output.split("whole ")[1].split()[0])
    assert 0 < count < 64
    assert output.endswith("left over 0\n")


def test_a_cache_that_can_only_be_read_serves_what_it_has_and_names_itself_for_what_it_lacks(
    lab: Lab, volume: Volume
) -> None:
    def mounted(mode: str) -> dict[str, dict[str, str]]:
        return {volume.name: {"bind": "/cache", "mode": mode}}

    fetched(lab, 2, 0, volumes=mounted("rw"))
    assert "outcome Fetched(objects=0, bytes=0" in fetched(lab, 2, 0, volumes=mounted("ro"))
    output = fetched(lab, 3, 0, volumes=mounted("ro"))
    assert "outcome unavailable the cache /cache cannot be written: Read-only file system" in output
