import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.settings import Settings, SettingsError, get_settings

SECRET = "canary-of-a-secret"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    for name in ("AIRFLOW", "TRAINER", "API"):
        monkeypatch.setenv(f"AIRLOCK_S3_{name}_ACCESS_KEY_ID", f"key-of-{name.lower()}")
        monkeypatch.setenv(f"AIRLOCK_S3_{name}_SECRET_ACCESS_KEY", SECRET)
    for name in ("S3_ENDPOINT_URL", "MLFLOW_URL", "MLFLOW_PUBLIC_URL", "DOCKER_URL", "FRONT_URL"):
        monkeypatch.setenv(f"AIRLOCK_{name}", "http://somewhere:1")
    monkeypatch.setenv("AIRLOCK_S3_BUCKET_PREFIX", "team-")
    get_settings.cache_clear()
    yield monkeypatch
    get_settings.cache_clear()


def test_buckets_carry_the_prefix(environment: pytest.MonkeyPatch) -> None:
    assert (get_settings().records_bucket, get_settings().bucket("digits-train")) == (
        "team-airlock",
        "team-digits-train",
    )


def test_every_missing_variable_is_named_at_once(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("AIRLOCK_MLFLOW_URL")
    environment.delenv("AIRLOCK_S3_AIRFLOW_SECRET_ACCESS_KEY")
    environment.setenv("AIRLOCK_DEVICE", "abacus")
    with pytest.raises(SettingsError) as caught:
        get_settings()
    message = str(caught.value)
    assert all(f"AIRLOCK_{name}" in message for name in ("MLFLOW_URL", "S3_AIRFLOW_SECRET_ACCESS_KEY", "DEVICE"))
    assert SECRET not in message


@pytest.mark.parametrize(("written", "limit"), [("", None), ("200g", 200 * 2**30), ("1048576", 2**20)])
def test_the_caches_limit_is_a_size_or_none(environment: pytest.MonkeyPatch, written: str, limit: int | None) -> None:
    environment.setenv("AIRLOCK_CACHE_LIMIT", written)
    assert get_settings().cache_limit == limit


@pytest.mark.parametrize("written", ["plenty", "0"])
def test_a_limit_that_is_no_size_is_named(environment: pytest.MonkeyPatch, written: str) -> None:
    environment.setenv("AIRLOCK_CACHE_LIMIT", written)
    with pytest.raises(SettingsError, match="AIRLOCK_CACHE_LIMIT"):
        get_settings()


def test_secrets_show_nowhere(environment: pytest.MonkeyPatch) -> None:
    settings = get_settings()
    assert settings.identity("api").secret_access_key == SECRET
    assert SECRET not in f"{settings!r} {settings} {settings.model_dump_json()} {settings.identity('api')!r}"


def test_the_admins_keys_are_the_set_up_jobs_alone(environment: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="AIRLOCK_S3_ADMIN_ACCESS_KEY_ID is not set"):
        get_settings().identity("admin")


@pytest.mark.parametrize("name", ["ACCESS_KEY_ID", "SECRET_ACCESS_KEY"])
def test_keys_that_a_process_was_not_given_are_asked_for_by_name(environment: pytest.MonkeyPatch, name: str) -> None:
    environment.delenv(f"AIRLOCK_S3_TRAINER_{name}")
    with pytest.raises(SettingsError, match=f"AIRLOCK_S3_TRAINER_{name} is not set: set it in .env"):
        get_settings().identity("trainer")


def test_images_are_found_by_variant(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "images.json"
    file.write_text(json.dumps({"trainer": {"default": "airlock-trainer-default:1"}, "api": "airlock-api:1"}))
    environment.setenv("AIRLOCK_IMAGES_FILE", str(file))
    settings = Settings.model_validate({})
    assert (settings.trainer_image("default"), settings.api_image()) == ("airlock-trainer-default:1", "airlock-api:1")
    with pytest.raises(
        SettingsError, match=r"no image of the trainer variant 'other' \(built: default\); run `make up`"
    ):
        settings.trainer_image("other")
    file.unlink()
    with pytest.raises(SettingsError, match="cannot be read"):
        settings.api_image()
