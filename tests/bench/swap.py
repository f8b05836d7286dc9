"""Part of `make bench-swap`: how long a rollback takes, and how many requests two naive deploys lose.

The API is the tests' stand-in, which starts in a fifth of a second: a real one takes longer, and loses more.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import pytest

from include.deployment import deploy, rollback
from include.putting_back import put_back
from tests.integration.docker_engine import wait_until
from tests.integration.front_door_parts import Asked, build_stub_api, clients
from tests.integration.ports import free_ports
from tests.integration.released import wish
from tests.integration.test_deployment import BETTER, GOOD, Deployment, deployment, s3_admin, settings

__all__ = ["deployment", "s3_admin", "settings"]

ROUNDS = 20
COMPOSE = Path(__file__).resolve().parents[2] / ".airlock/host/bin/docker-compose"


def test_rollback_while_the_old_release_is_warm(deployment: Deployment) -> None:
    """Goal: at most a second from the decision to the last new request that the refused release answers."""
    deployment.release(GOOD, 1, None)
    seconds = []
    with clients(deployment.running.url, deployment.project.name) as asked:
        for number in range(2, ROUNDS + 2):
            deploy(deployment.world, deployment.project, wish(BETTER, number, 1))
            seconds.append(_until_back(asked, lambda number=number: _give_up(deployment, number)))  # type: ignore[misc]
    assert asked.failures == []
    print(f"\nrollback, the old release warm: {_summary(seconds)}")


def test_rollback_of_a_promoted_release(deployment: Deployment) -> None:
    """As `airlock__rollback` does it: the release before is started, proved and switched to."""
    seconds = []
    with clients(deployment.running.url, deployment.project.name) as asked:
        version = 0
        for number in range(ROUNDS // 4):
            version += 2
            deployment.release(GOOD, version - 1, version - 2 if number else None)
            deployment.release(BETTER, version, version - 1)
            asked.failures.clear()  # those of before the first release
            seconds.append(_until_back(asked, lambda: put_back(deployment.world, deployment.project, None, "m", "ann")))
            deployment.release(BETTER, version + 1, version - 1)
            version += 1
            assert asked.failures == []
    print(f"\nairlock__rollback of a promoted release: {_summary(seconds)}")


@pytest.mark.parametrize("way", ["stop, then start", "Compose, recreate"])
def test_naive_deploys(docker_client: docker.APIClient, tmp_path: Path, way: str) -> None:
    """One container on a published port, replaced."""
    image = build_stub_api(docker_client)
    lost = []
    with _naive(way, image, tmp_path) as (url, replace), clients(url, "naive") as asked:
        for number in range(ROUNDS):
            before, run = len(asked.failures), f"{number:032x}"
            replace(run)
            wait_until(lambda run=run: asked.runs[run] > 100)  # type: ignore[misc]
            lost.append(len(asked.failures) - before)
    print(
        f"\n{way}: {sum(lost)} of {asked.total()} requests lost in {ROUNDS} deploys, "
        f"{statistics.median(lost):.0f} in the median"
    )


def _until_back(asked: Asked, give_up: Callable[[], object]) -> float:
    """Seconds from the decision until the last request that the refused release still answered was begun."""
    wait_until(lambda: time.monotonic() - asked.begun.get(BETTER, 0.0) < 0.5)
    decided = time.monotonic()
    give_up()
    seen = asked.runs[GOOD]
    wait_until(lambda: asked.runs[GOOD] > seen + 50)
    return asked.begun[BETTER] - decided


def _give_up(deployment: Deployment, number: int) -> None:
    rollback(deployment.world, deployment.project, f"run-{number}", "bench")


def _summary(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.2f} s ({min(seconds):.2f}–{max(seconds):.2f}; {len(seconds)})"


@contextmanager
def _naive(way: str, image: str, directory: Path) -> Iterator[tuple[str, Callable[[str], None]]]:
    (port,) = free_ports(1)
    environment = {"PROJECT": "naive", "RELEASE_ID": "r", "IMAGE_ID": image}

    def stop_then_start(run: str) -> None:
        for end in ("stop", "rm"):
            subprocess.run(["docker", end, "airlock-bench-naive"], capture_output=True)
        told = [f"--env={name}={value}" for name, value in {**environment, "MLFLOW_RUN_ID": run}.items()]
        publish = f"--publish=127.0.0.1:{port}:8000"
        subprocess.run(
            ["docker", "run", "--detach", "--init", "--name=airlock-bench-naive", publish, *told, image],
            check=True,
            capture_output=True,
        )

    def recreate(run: str) -> None:
        lines = "".join(f"      {name}: {value!r}\n" for name, value in {**environment, "MLFLOW_RUN_ID": run}.items())
        file = directory / "compose.yaml"
        file.write_text(
            f"services:\n  api:\n    image: {image}\n    init: true\n    ports: ['127.0.0.1:{port}:8000']\n"
            f"    environment:\n{lines}"
        )
        command = [str(COMPOSE), "--project-name=airlock-bench-naive", f"--file={file}"]
        subprocess.run([*command, "up", "--detach"], check=True, capture_output=True)

    replace = stop_then_start if way.startswith("stop") else recreate
    try:
        replace("f" * 32)
        yield f"http://127.0.0.1:{port}", replace
    finally:
        subprocess.run(["docker", "rm", "--force", "airlock-bench-naive"], capture_output=True)
        if (directory / "compose.yaml").exists():
            down = [str(COMPOSE), "--project-name=airlock-bench-naive", f"--file={directory / 'compose.yaml'}", "down"]
            subprocess.run(down, check=True, capture_output=True)
