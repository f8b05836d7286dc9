"""What make runs on the host: settings, image tags, the error of a machine that lacks Docker."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import settings_file

import images

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = (ROOT / ".env.example").read_text()


@pytest.fixture(autouse=True)
def no_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_file, "device", lambda: "cpu")


def settings_of(text: str, tmp_path: Path) -> dict[str, str]:
    file = tmp_path / "settings"
    file.write_text(text)
    return settings_file.read(file)


def test_every_secret_is_made_at_the_first_start_and_no_two_are_alike(tmp_path: Path) -> None:
    made = settings_of(settings_file.complete(EXAMPLE, {}), tmp_path)
    secrets = [made[name] for name in made if name.endswith(("PASSWORD", "SECRET", "_KEY", "_KEY_ID"))]
    assert len(secrets) == 15
    assert all(len(secret) >= 20 for secret in secrets)
    assert len(set(secrets)) == len(secrets)


def test_a_later_start_changes_no_setting(tmp_path: Path) -> None:
    first = settings_file.complete(EXAMPLE, {})
    assert settings_file.complete(EXAMPLE, settings_of(first, tmp_path)) == first


def test_a_setting_of_the_users_own_is_kept(tmp_path: Path) -> None:
    made = settings_of(settings_file.complete(EXAMPLE, {"AIRFLOW_PORT": "9999", "MINE": "yes"}), tmp_path)
    assert (made["AIRFLOW_PORT"], made["MINE"]) == ("9999", "yes")


def test_no_key_is_made_up_for_somebody_elses_server(tmp_path: Path) -> None:
    made = settings_of(settings_file.complete(EXAMPLE, {"COMPOSE_PROFILES": ""}), tmp_path)
    assert {made[name] for name in made if settings_file.ROLE_KEY.match(name)} == {""}


def test_with_minio_every_role_has_the_one_pair_of_keys_that_it_knows(tmp_path: Path) -> None:
    made = settings_of(settings_file.complete(EXAMPLE, {"COMPOSE_PROFILES": "minio"}), tmp_path)
    assert len({made[name] for name in made if name.startswith("S3_") and name.endswith("_ACCESS_KEY_ID")}) == 1
    assert len({made[name] for name in made if name.startswith("S3_") and name.endswith("_SECRET_ACCESS_KEY")}) == 1


def image(folder: Path, **args: str) -> images.Image:
    return images.Image("thing", folder / "Dockerfile", images.context_of(folder), args)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "program").write_text("one\n")
    return tmp_path


def test_an_images_tag_follows_what_it_is_built_from_and_nothing_else(context: Path) -> None:
    before = image(context).tag
    (context / "__pycache__").mkdir()
    (context / "__pycache__" / "program.pyc").write_text("clutter")
    (context / ".hidden").write_text("clutter")
    assert image(context).tag == before
    (context / "program").write_text("two\n")
    changed = image(context).tag
    assert changed != before
    (context / "program").chmod(0o755)
    assert image(context).tag != changed
    assert image(context, BASE="other").tag != image(context, BASE="one").tag


def test_without_docker_and_root_the_error_names_both_ways_out(tmp_path: Path) -> None:
    for tool in ("bash", "dirname", "id", "seq", "sleep"):
        (tmp_path / tool).symlink_to(str(shutil.which(tool)))
    # Somebody who is not root, on a machine where no docker is to be found.
    (tmp_path / "id").unlink()
    (tmp_path / "id").write_text(
        '#!/bin/sh\n[ "$1" = -u ] && echo 1000 || echo somebody\n'.replace("/bin/sh", str(shutil.which("bash")))
    )
    (tmp_path / "id").chmod(0o755)
    done = subprocess.run(
        [str(shutil.which("bash")), str(ROOT / "scripts" / "bootstrap")],
        env={"PATH": str(tmp_path), "HOME": os.environ.get("HOME", "/")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "sudo make" in done.stderr
    assert "https://docs.docker.com/engine/install/" in done.stderr
