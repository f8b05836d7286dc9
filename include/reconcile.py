"""`python -m include.reconcile`: what should serve serves again, for every project; run by `make up`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial

from include.containers import DockerUnavailable
from include.project import Project, default_bucket, load_all
from include.putting_back import reconcile
from include.real_world import api_containers, real_world
from include.releases import TurnLost
from include.settings import Settings, SettingsError, get_settings
from include.turns import PATIENCE, Busy, taken
from include.world import World

log = logging.getLogger(__name__)

AT_A_TIME = 4
HOLDER = "reconcile"


def main() -> int:
    """Reconcile every project, whatever becomes of the others; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in ("botocore", "urllib3", "mlflow"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        return 0 if reconcile_all(get_settings()) else 1
    except (SettingsError, DockerUnavailable) as error:
        log.error("%s", error)
        return 1


def reconcile_all(settings: Settings, patience: timedelta = PATIENCE) -> bool:
    """Reconcile every project at most `patience` after another's turn at it; returns whether all went well.

    Raises DockerUnavailable where the gate does not answer.
    """
    projects = load_all()
    for mistakes in projects.broken.values():
        log.error("%s", mistakes)
    world, containers = real_world(settings), api_containers(settings)
    jobs = {
        # A mistake in a file takes nothing from service.
        name: partial(reconcile, world, projects.or_defaults(name), HOLDER, patience)
        for name in projects.names
    }
    gone = {found.project for found in containers.all()} - projects.names
    jobs |= {name: partial(retire, world, name) for name in gone}
    return run_all(jobs)


def run_all(jobs: Mapping[str, Callable[[], str]]) -> bool:
    """Run each job and log what it says; returns whether all went well."""

    def run(name: str) -> bool:
        try:
            log.info("%s", jobs[name]())
        except (Busy, TurnLost) as error:  # who acts on it sees to it that something serves
            log.info("%s: left alone", error)
        except Exception as error:  # one project's trouble must not keep the others from serving
            log.error("%s could not be reconciled: %s: %s", name, type(error).__name__, error)
            return False
        return True

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        return all(list(pool.map(run, sorted(jobs))))


def retire(world: World, name: str) -> str:
    """Take a project that is no longer described out of service; its buckets, runs and records stay."""
    with taken(world, Project(name=name, bucket=default_bucket(name)), HOLDER) as turn:
        with turn.effect():
            world.door.route(name, None)
        for found in world.containers.of(name):
            with turn.effect():
                world.containers.remove(found.name)
    return f"{name} has no file in include/projects/ any more: its route and containers are gone, its data stays"


if __name__ == "__main__":
    sys.exit(main())
