"""Stops and removes one container, in a process that outlives the one that asks for it.

Airflow kills a task's process group five seconds after SIGTERM. A trainer may need longer than that to close its run,
and the container must be removed even then.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import docker

from include.containers import stop_and_remove


def spawn(docker_url: str, container_id: str, grace_seconds: int) -> None:
    """Begin to stop and remove a container; returns at once."""
    subprocess.Popen(
        [sys.executable, "-m", "include.container_reaper", docker_url, container_id, str(grace_seconds)],
        # A session of its own, out of reach of a signal to the group.
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )


if __name__ == "__main__":
    url, target, grace = sys.argv[1:]
    stop_and_remove(docker.APIClient(base_url=url), target, int(grace))
