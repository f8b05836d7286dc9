"""`python -m include.reconcile`: what should serve serves again, for every project; run by `make up`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from include.api_containers import ApiContainers
from include.containers import DockerUnavailable
from include.deployment import reconcile
from include.front_door import FrontDoor
from include.project import Project, Projects, default_bucket, load_all
from include.real_world import api_containers, real_world
from include.settings import SettingsError, get_settings

log = logging.getLogger(__name__)

AT_A_TIME = 4


def main() -> int:
    """Reconcile every project, whatever becomes of the others; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in ("botocore", "urllib3", "mlflow"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        settings = get_settings()
    except SettingsError as error:
        log.error("%s", error)
        return 1
    projects = load_all()
    for mistakes in projects.broken.values():
        log.error("%s", mistakes)
    door = FrontDoor(settings.haproxy_dir)
    try:
        world, containers = real_world(settings), api_containers(settings)
    except DockerUnavailable as error:
        log.error("%s", error)
        return 1
    jobs = {name: partial(reconcile, world, as_project(projects, name)) for name in projects.names}
    gone = {found.project for found in containers.all()} - projects.names
    jobs |= {name: partial(retire, containers, door, name) for name in gone}
    return 0 if run_all(jobs) else 1


def run_all(jobs: Mapping[str, Callable[[], str]]) -> bool:
    """Run each job and log what it says; returns whether all went well."""

    def run(name: str) -> bool:
        try:
            log.info("%s", jobs[name]())
        except Exception as error:  # one project's trouble must not keep the others from serving
            log.error("%s could not be reconciled: %s: %s", name, type(error).__name__, error)
            return False
        return True

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        return all(list(pool.map(run, sorted(jobs))))


def as_project(projects: Projects, name: str) -> Project:
    """The project; with a broken file, one of defaults: a mistake in a file takes nothing from service."""
    return projects.usable.get(name) or Project(name=name, bucket=default_bucket(name))


def retire(containers: ApiContainers, door: FrontDoor, project: str) -> str:
    """Take a project that is no longer described out of service; its buckets, runs and records stay."""
    with door.lock(project):
        door.route(project, None)
        for found in containers.of(project):
            containers.remove(found.name)
    return f"{project} has no file in include/projects/ any more: its route and containers are gone, its data stays"


if __name__ == "__main__":
    sys.exit(main())
