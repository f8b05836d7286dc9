"""`python -m include.prepare`: the files that other services read at their start.

Runs before everything else at each `make up`, with no network to anything: S3 identities for the embedded server,
Airflow's password file, HAProxy's configuration. Each file is replaced in one step, and only where it changed.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import BaseSettings

from include import s3_identities
from include.airflow_api import USER
from include.front_door import FrontDoor
from include.project import load_all
from include.settings import S3Identity, Settings, SettingsError, from_environment, get_settings

log = logging.getLogger(__name__)

IDENTITIES = Path("/run/airlock-s3/identities.json")
PASSWORDS = Path("/run/airlock-secrets/passwords.json")


class Secrets(BaseSettings):
    """What only this job is given, besides the deployment's settings."""

    airflow_admin_password: SecretStr
    airflow_watchdog_password: SecretStr
    airlock_s3_mlflow_access_key_id: str
    airlock_s3_mlflow_secret_access_key: SecretStr


def replace(path: Path, text: str) -> None:
    """Writes a file in one step, readable by its owner alone, where its content would change."""
    if path.exists() and path.read_text() == text:
        return
    part = path.with_suffix(".part")
    part.touch(mode=0o600)
    part.write_text(text)
    part.replace(path)
    log.info("wrote %s", path)


def identities(settings: Settings, secrets: Secrets) -> str:
    """The embedded S3 server's identities file."""
    roles = ("admin", "airflow", "trainer", "api")
    keys = {role: settings.identity(role) for role in roles}  # type: ignore[arg-type]
    keys["mlflow"] = S3Identity(
        secrets.airlock_s3_mlflow_access_key_id, secrets.airlock_s3_mlflow_secret_access_key.get_secret_value()
    )
    buckets = [settings.bucket(project.bucket) for project in load_all().usable.values()]
    return json.dumps(s3_identities.document(keys, s3_identities.actions(settings, buckets)), indent=1)


def main() -> None:
    """Writes the files. Raises SettingsError where the environment lacks a setting."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings, secrets = get_settings(), from_environment(Secrets)
    replace(IDENTITIES, identities(settings, secrets))
    users = {"admin": secrets.airflow_admin_password, USER: secrets.airflow_watchdog_password}
    replace(PASSWORDS, json.dumps({name: password.get_secret_value() for name, password in users.items()}))
    FrontDoor(settings.haproxy_dir).configure(load_all().routed, guarded=settings.published)


if __name__ == "__main__":
    try:
        main()
    except SettingsError as mistakes:
        sys.exit(str(mistakes))
