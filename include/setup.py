"""`python -m include.setup`: the buckets, what the S3 server can do, and the front door's map. Safe to repeat."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from include import api_keys, s3
from include.buckets import ensure_buckets, writes_conditionally
from include.front_door import FrontDoor
from include.haproxy_runtime import FrontDoorError
from include.project import Projects, load_all
from include.releases import ReleaseError, Releases, Route
from include.s3 import Bucket, StorageError
from include.settings import Settings, SettingsError, get_settings

log = logging.getLogger(__name__)


def main() -> int:
    """Set the deployment up; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("botocore").setLevel(logging.WARNING)
    try:
        set_up(get_settings(), load_all())
    except (SettingsError, StorageError, FrontDoorError, api_keys.ApiKeyError) as error:
        log.error("%s", error)
        return 1
    return 0


def set_up(settings: Settings, projects: Projects) -> None:
    """Buckets, probe, map. Broken projects are named and left as they are."""
    for error in projects.broken.values():
        log.error("%s", error)
    admin = s3.client(settings, settings.identity("admin"))
    own = [settings.records_bucket, settings.dvc_bucket, settings.mlflow_bucket]
    theirs = [settings.bucket(project.bucket) for project in projects.usable.values()]
    for name in ensure_buckets(admin, [*own, *theirs]):
        log.info("created the bucket %s", name)
    records = Bucket(admin, settings.records_bucket)
    if not writes_conditionally(records):
        log.warning(
            "the S3 server does not write conditionally: two deploys or two snapshots at a time could overwrite each "
            "other's state; keep the pools `deploy` and `snapshot` at one slot"
        )
    door = FrontDoor(settings.haproxy_dir)
    door.configure(projects.routed, guarded=settings.published)
    door.route_all(lambda: routes(Releases(records), projects.names, door.routed))
    api_keys.apply(door, api_keys.ApiKeys(records), projects.names)


def routes(releases: Releases, names: frozenset[str], routed: Callable[[str], Route | None]) -> dict[str, Route]:
    """Where each project's traffic should go, from the release records; with unreadable ones, where it goes now."""

    def route(name: str) -> Route | None:
        try:
            return releases.state(name)[0].route
        except ReleaseError as error:
            log.error("%s; put back what it held (docs/contracts.md). What serves stays as it is", error)
            return routed(name)

    found = {name: route(name) for name in sorted(names)}
    return {name: chosen for name, chosen in found.items() if chosen is not None}


if __name__ == "__main__":
    sys.exit(main())
