"""The settings of the embedded S3 server, in images/s3/: what fits on a small disk."""

from __future__ import annotations

from pathlib import Path

import docker

from tests.integration.embedded_s3 import DISK_BYTES, embedded_s3

# Twenty projects, and Airlock's own three; one more, since a limit is not to be met.
BUCKETS = 24
VOLUMES_OF_A_BUCKET = 2
FULL_VOLUME_BYTES = 1 << 30


def test_twenty_projects_fit_on_a_disk_that_is_smaller_than_one_full_volume(
    docker_client: docker.APIClient, tmp_path: Path
) -> None:
    assert DISK_BYTES < FULL_VOLUME_BYTES
    names = [f"project-{number}-train" for number in range(BUCKETS)]
    with embedded_s3(docker_client, tmp_path, names) as server:
        admin, trainer = server.client("admin"), server.client("trainer")
        for name in names:
            bucket = server.settings.bucket(name)
            admin.create_bucket(Bucket=bucket)
            admin.put_object(Bucket=bucket, Key="cat/1.png", Body=name.encode())
        for name in names:
            there = trainer.get_object(Bucket=server.settings.bucket(name), Key="cat/1.png")
            assert there["Body"].read() == name.encode()
        volumes = server.said("sh", "-c", f"ls /data/{server.settings.s3_bucket_prefix}*.dat").split()
    assert len(volumes) == BUCKETS * VOLUMES_OF_A_BUCKET
