"""Who may ask a project's API: keys of which only a hash is kept, changed while everything runs.

`python -m include.api_keys add|revoke|list <project> [<name>]`; `make api-key` calls it.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import secrets
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from include.front_door import FrontDoor
from include.haproxy_runtime import FrontDoorError
from include.project import load_all
from include.real_world import records
from include.releases import Objects
from include.s3 import ObjectChanged, StorageError
from include.settings import SettingsError, get_settings

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")
KEY_BYTES = 32


class ApiKeyError(Exception):
    """The keys cannot be changed as asked."""


class ApiKey(BaseModel):
    """A key that was given to somebody; its own bytes are nowhere."""

    model_config = ConfigDict(frozen=True)

    name: str
    sha256: str
    created_at: datetime


class ProjectKeys(BaseModel):
    """The keys of a project, as they lie in the bucket."""

    model_config = ConfigDict(frozen=True)

    keys: tuple[ApiKey, ...] = ()

    def added(self, name: str, secret: str, at: datetime) -> ProjectKeys:
        """With one more. Raises ApiKeyError where the name is taken or none."""
        if NAME.fullmatch(name) is None:
            raise ApiKeyError(f"{name!r} names no key: letters, digits, dots and dashes, in lower case, at most 40")
        if any(key.name == name for key in self.keys):
            raise ApiKeyError(f"there is a key {name!r} already; revoke it, or add one with another name beside it")
        return ProjectKeys(keys=(*self.keys, ApiKey(name=name, sha256=hashed(secret), created_at=at)))

    def revoked(self, name: str) -> ProjectKeys:
        """Without this one. Raises ApiKeyError where there is none of this name."""
        left = tuple(key for key in self.keys if key.name != name)
        if len(left) == len(self.keys):
            known = ", ".join(key.name for key in self.keys) or "none"
            raise ApiKeyError(f"there is no key {name!r}; there are: {known}")
        return ProjectKeys(keys=left)


class ApiKeys:
    """The keys of every project, in a bucket. Raises ApiKeyError for what cannot be read."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def of(self, project: str) -> tuple[ProjectKeys, str | None]:
        """A project's keys, and the ETag to write them back with (None: never written)."""
        stored = self._objects.read(_object(project))
        if stored is None:
            return ProjectKeys(), None
        try:
            return ProjectKeys.model_validate_json(stored.body), stored.etag
        except ValidationError as error:
            raise ApiKeyError(f"{_object(project)} cannot be read: {error}") from None

    def write(self, project: str, keys: ProjectKeys, etag: str | None) -> None:
        """Compare-and-set. Raises ApiKeyError where another has changed them meanwhile."""
        body = keys.model_dump_json(indent=1).encode()
        try:
            if etag is None:
                self._objects.create(_object(project), body)
            else:
                self._objects.replace(_object(project), body, etag)
        except ObjectChanged:
            raise ApiKeyError(f"the keys of {project} were changed by another meanwhile: try again") from None


def hashed(secret: str) -> str:
    """As HAProxy hashes what a client sends. The key is random and long: it needs no salt, and no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()


def entries(keys: Mapping[str, ProjectKeys]) -> dict[str, str]:
    """The front door's map: `<project>:<hash>` to `<project>:<name>`."""
    return {f"{project}:{key.sha256}": f"{project}:{key.name}" for project, of in keys.items() for key in of.keys}


def apply(door: FrontDoor, store: ApiKeys, projects: Iterable[str]) -> None:
    """Make the front door know the keys of these projects, and no others."""
    door.set_keys(lambda: entries({project: store.of(project)[0] for project in sorted(projects)}))


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m include.api_keys")
    parser.add_argument("action", choices=["add", "revoke", "list"])
    parser.add_argument("project")
    parser.add_argument("name", nargs="?", default="")
    asked = parser.parse_args(arguments)
    try:
        change(asked.action, asked.project, asked.name)
    except (ApiKeyError, SettingsError, StorageError, FrontDoorError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def change(action: str, project: str, name: str) -> None:
    """Add a key, which is printed once; revoke one; or list them."""
    settings, projects = get_settings(), load_all()
    if project not in projects.names:
        raise ApiKeyError(f"there is no project {project!r}; there are: {', '.join(sorted(projects.names)) or 'none'}")
    store = ApiKeys(records(settings))
    keys, etag = store.of(project)
    if action == "list":
        for key in keys.keys:
            print(f"{key.name}  since {key.created_at:%Y-%m-%d %H:%M:%S} UTC")
        return
    secret = secrets.token_urlsafe(KEY_BYTES)
    changed = keys.added(name, secret, datetime.now(UTC)) if action == "add" else keys.revoked(name)
    store.write(project, changed, etag)
    apply(FrontDoor(settings.haproxy_dir), store, projects.names)
    print(secret if action == "add" else f"the key {name} of {project} opens nothing any more")


def _object(project: str) -> str:
    return f"keys/{project}.json"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
