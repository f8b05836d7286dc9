"""Secrets stand in nothing that was written: every random value of `.env` is a canary, looked for everywhere.

Everything that ran on this system counts, the good run of the demo and whatever the tests before this one made; one
more run is made to fail here with S3 away, since it is in errors that secrets like to travel.
"""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.e2e.system import ROOT, Run, System, images, our_containers

# A second trainer's image differs in the versions of packages only, and is as large as all others together.
IMAGES_LEFT_OUT = "airlock-trainer-ultralytics"
VOLUMES = {"airlock-cache": "/seen/cache", "airlock-weights": "/seen/weights", "airlock-haproxy": "/seen/haproxy"}


@pytest.fixture(scope="module")
def failed(system: System) -> Run:
    """A run of the demo's project that failed while S3 was away."""
    with system.held("gpu"):
        answer = system.trigger("digits", epochs=1, reason="fails with S3 away")
        assert answer.status_code == 200, answer.text
        run = system.run("digits__retrain", answer.json()["dag_run_id"])
        system.await_task(run, "train", "scheduled")
        with system.down("s3"):
            system.set_slots("gpu", 1)
            system.await_task(run, "train", "up_for_retry")
            return system.give_up(run)


@pytest.fixture(scope="module")
def canaries(system: System) -> tuple[bytes, ...]:
    """Every secret of `.env`, plain and as it would look encoded."""
    words = ("SECRET", "PASSWORD", "FERNET")
    values = [value for key, value in system.settings.items() if value and any(word in key for word in words)]
    assert len(values) >= 10
    plain = [value.encode() for value in values]
    encoded = [form for value in plain for form in (value.hex().encode(), base64.b64encode(value).rstrip(b"="))]
    return tuple({*plain, *encoded, *(quote(value, safe="").encode() for value in values)})


def found_in(canaries: Iterable[bytes], content: bytes) -> int:
    """How many canaries stand in some content. A count: an assertion's message must show no secret either."""
    return sum(canary in content for canary in canaries)


def output(*command: str) -> bytes:
    """What a command wrote to both streams. Fails where it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
    assert done.returncode == 0, f"{command[:3]}: {done.stdout[-500:]!r}"
    return done.stdout


def test_no_secret_stands_in_airflows_logs(system: System, canaries: tuple[bytes, ...], failed: Run) -> None:
    logs = output("docker", "cp", f"{system.container_of('airflow-scheduler')}:/opt/airlock/home/logs", "-")
    assert failed.run_id.encode() in logs
    assert system.metadata("digits")["run_id"].encode() in logs
    assert found_in(canaries, logs) == 0


@pytest.mark.parametrize("database", ["airflow", "mlflow"])
def test_no_secret_stands_in_a_database(
    system: System, canaries: tuple[bytes, ...], failed: Run, database: str
) -> None:
    postgres = system.container_of("postgres")
    dump = output("docker", "exec", postgres, "pg_dump", "-h", "/run/postgresql", "-U", "airlock", database)
    # Task instances, XComs and rendered templates; runs and their tags.
    seen = failed.run_id if database == "airflow" else system.metadata("digits")["run_id"]
    assert seen.encode() in dump
    assert found_in(canaries, dump) == 0


@pytest.mark.parametrize("bucket", ["airlock", "mlflow", "dvc"], ids=["records", "artifacts", "datasets and weights"])
def test_no_secret_stands_in_a_bucket(system: System, canaries: tuple[bytes, ...], failed: Run, bucket: str) -> None:
    pages = system.s3.get_paginator("list_objects_v2").paginate(Bucket=system.bucket(bucket))
    keys = [row["Key"] for page in pages for row in page.get("Contents", [])]
    assert keys

    def leaks(key: str) -> int:
        return found_in(canaries, system.read(bucket, key))

    with ThreadPoolExecutor(4) as pool:
        assert [key for key, count in zip(keys, pool.map(leaks, keys), strict=True) if count] == []


def test_no_secret_stands_in_what_containers_print(system: System, canaries: tuple[bytes, ...], failed: Run) -> None:
    containers = our_containers()
    assert len(containers) > 8
    leaking = [name for name in containers if found_in(canaries, output("docker", "logs", name))]
    assert leaking == []


def test_no_secret_stands_in_a_log_on_the_host(canaries: tuple[bytes, ...], failed: Run) -> None:
    logs = [*(ROOT / ".airlock" / "logs").glob("*.log"), *Path("/var/log").glob("dockerd.log")]
    assert [log.name for log in logs if found_in(canaries, log.read_bytes())] == []


def test_no_secret_stands_in_the_volumes_of_tasks_and_api(
    system: System, canaries: tuple[bytes, ...], failed: Run
) -> None:
    mounts = [f"--volume={volume}:{place}:ro" for volume, place in VOLUMES.items()]
    command = ["docker", "run", "--rm", "--network=none", "--user=0", *mounts, "--entrypoint=tar", looked_at()[0]]
    content = output(*command, "--create", "/seen")
    assert b"seen/weights/runs/" in content
    assert found_in(canaries, content) == 0


def looked_at() -> list[str]:
    """The images that `make up` built, one trainer among them."""
    return [tag for tag in images().values() if not tag.startswith(IMAGES_LEFT_OUT)]


def test_no_secret_stands_in_an_image(canaries: tuple[bytes, ...], tmp_path: Path) -> None:
    for image in looked_at():
        told = output("docker", "history", "--no-trunc", image) + output("docker", "image", "inspect", image)
        assert found_in(canaries, told) == 0, image
    # Gigabytes: grep reads them once for all canaries.
    wanted = tmp_path / "canaries"
    wanted.touch(mode=0o600)
    wanted.write_bytes(b"\n".join(canaries) + b"\n")
    with subprocess.Popen(["docker", "save", *looked_at()], stdout=subprocess.PIPE) as saving:
        grep = ["grep", "--text", "--fixed-strings", "--count", f"--file={wanted}"]
        counted = subprocess.run(grep, stdin=saving.stdout, stdout=subprocess.PIPE, env={"LC_ALL": "C"}, timeout=600)
    assert (saving.returncode, counted.stdout, counted.returncode) == (0, b"0\n", 1)
