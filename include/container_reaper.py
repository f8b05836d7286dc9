"""Stops and removes a container whose task was given up, in a process that outlives the task's.

Airflow kills a task's process group five seconds after SIGTERM. A trainer may need longer than that to close its run,
and the container must be removed even then. The same SIGTERM comes when Airflow itself is stopped or restarted: then
nobody has given the task up, and its next attempt goes on with the container. What it was, the task's state says.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import docker
import requests

from include.airflow_api import AirflowApi
from include.containers import TaskInstance, stop_and_remove
from include.settings import Settings, get_settings

# What a task's state is while nobody has given it up.
GOES_ON = frozenset({"running", "queued", "scheduled", "deferred", "up_for_retry"})
# A person's decision comes through an Airflow that answers. One that does not is overloaded, or starts again and knows
# then; where it was stopped for good, this process was too.
PATIENCE_SECONDS = 300.0
POLL_SECONDS = 0.5


def spawn(container_id: str, instance: TaskInstance, grace_seconds: int) -> None:
    """Begin to find out whether the task was given up, and to stop and remove its container then; returns at once."""
    arguments = [container_id, json.dumps(asdict(instance)), str(grace_seconds)]
    subprocess.Popen(
        [sys.executable, "-m", "include.container_reaper", *arguments],
        # A session of its own, out of reach of a signal to the group.
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )


def given_up(api: AirflowApi, instance: TaskInstance, patience_seconds: float = PATIENCE_SECONDS) -> bool:
    """Whether a person, or a time-out of the whole run, has ended the task. False where Airflow does not answer."""
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            state = api.task_state(instance.dag_id, instance.run_id, instance.task_id, instance.map_index)
            return state not in GOES_ON
        except (requests.RequestException, ValueError, KeyError):
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)


def reap(settings: Settings, container_id: str, instance: TaskInstance, grace_seconds: int) -> None:
    """Stop and remove the container if its task was given up."""
    api = AirflowApi(settings.airflow_url, settings.watchdog_password.get_secret_value())
    if given_up(api, instance):
        stop_and_remove(docker.APIClient(base_url=settings.docker_url), container_id, grace_seconds)


if __name__ == "__main__":
    target, task, grace = sys.argv[1:]
    reap(get_settings(), target, TaskInstance(**json.loads(task)), int(grace))
