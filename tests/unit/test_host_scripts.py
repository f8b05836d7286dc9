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
    assert len(secrets) == 16
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


def test_with_a_server_of_the_users_own_one_pair_of_keys_is_every_roles(tmp_path: Path) -> None:
    own = {"COMPOSE_PROFILES": "", "S3_ADMIN_ACCESS_KEY_ID": "id", "S3_ADMIN_SECRET_ACCESS_KEY": "secret"}
    made = settings_of(settings_file.complete(EXAMPLE, own), tmp_path)
    assert {made[name] for name in made if settings_file.ROLE_KEY.match(name)} == {"id", "secret"}


def test_comments_of_the_users_own_are_kept(tmp_path: Path) -> None:
    made = settings_file.complete(EXAMPLE, {}, ["# ask Ann before changing the port"])
    assert made.count("# ask Ann before changing the port") == 1
    again = settings_file.complete(EXAMPLE, settings_of(made, tmp_path), made.splitlines())
    assert again == made


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("FRONT_PORT=8001 # mine", "write the value of FRONT_PORT without quotes"),
        ("AIRFLOW_ADMIN_PASSWORD='x'", "write the value of AIRFLOW_ADMIN_PASSWORD without quotes"),
        ("export FRONT_PORT=8001", "is no setting: write NAME=value"),
        ("POSTGRES_PASSWORD=a@b", "POSTGRES_PASSWORD goes into addresses"),
    ],
)
def test_a_line_that_programs_would_read_differently_is_refused(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(settings_file.SettingsError, match=words):
        settings_of(f"# settings\n{line}\n", tmp_path)


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


def test_the_tag_follows_the_name_of_a_wheel_and_not_of_what_is_hashed_by_name(context: Path) -> None:
    def tag() -> str:
        return images.Image("thing", context / "Dockerfile", images.context_of(context), {}, ("wheels/",)).tag

    wheels = context / "wheels"
    wheels.mkdir()
    before = tag()
    (wheels / "torch-2.13.0+cpu.whl").write_text("one")
    with_wheel = tag()
    assert with_wheel != before
    (wheels / "torch-2.13.0+cpu.whl").write_text("two")
    assert tag() == with_wheel


@pytest.mark.parametrize(("device", "taken"), [("cpu", True), ("cuda", False)])
def test_a_wheel_of_the_cpu_build_is_not_for_cuda(device: str, taken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = "wheels/torch-2.13.0+cpu.whl"
    monkeypatch.setattr(images, "context_of", lambda _: {wheel: Path(wheel), "trainer/yolo.py": Path("yolo.py")})
    made = images.trainer_images({"AIRLOCK_DEVICE": device}, ["default"], "base")
    assert (wheel in made["default"].files) == taken


@pytest.mark.parametrize(("settings", "taken"), [({}, None), ({"API_DEVICE": "cuda"}, "requirements-cuda.txt")])
def test_the_api_image_is_built_with_cuda_where_its_device_is(settings: dict[str, str], taken: str | None) -> None:
    (api,) = (image for image in images.service_images(settings, "base") if image.name == "api")
    assert api.args.get("REQUIREMENTS") == taken


def test_only_the_trainer_variants_of_the_named_projects_are_built() -> None:
    assert images.trainer_variants(["digits"]) == ["default"]
    assert images.trainer_variants(["shapes"]) == ["ultralytics-8.3"]
    assert images.trainer_variants([]) == ["default", "ultralytics-8.3"]


def test_a_variant_in_quotes_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "include" / "projects"
    folder.mkdir(parents=True)
    (folder / "cats.yaml").write_text('trainer: "ultralytics-8.3"\n')
    (tmp_path / "images" / "trainer" / "variants" / "ultralytics-8.3").mkdir(parents=True)
    monkeypatch.setattr(images, "ROOT", tmp_path)
    assert images.trainer_variants([]) == ["ultralytics-8.3"]


def test_every_variant_names_its_pytorch() -> None:
    made = images.trainer_images({"AIRLOCK_DEVICE": "cpu"}, images.trainer_variants([]), "base")
    assert all(images.torch_version(image) for image in made.values())


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout's scripts, with the settings of a system that was up."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / ".env").write_text("POSTGRES_PASSWORD=precious\n")
    (tmp_path / ".airlock").mkdir()
    (tmp_path / ".airlock" / "images.env").write_text("AIRLOCK_IMAGE_S3=airlock-s3:1\n")
    return tmp_path


def stand_in(checkout: Path, program: str, script: str) -> None:
    """A program of the host that does what the script says."""
    tools = checkout / "tools"
    tools.mkdir(exist_ok=True)
    (tools / program).write_text(f"#!/bin/sh\n{script}\n")
    (tools / program).chmod(0o755)


def call(checkout: Path, script: str, answer: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs one of the scripts; the stand-ins come before the host's programs."""
    inherited = {name: value for name, value in os.environ.items() if name != "AIRLOCK_YES"}
    path = f"{checkout / 'tools'}:{os.environ['PATH']}"
    return subprocess.run(
        [checkout / "scripts" / script],
        env={**inherited, "PATH": path, **environment},
        input=answer,
        capture_output=True,
        text=True,
    )


def test_destroy_removes_nothing_while_the_engine_that_has_the_data_is_away(checkout: Path) -> None:
    stand_in(checkout, "docker", "exit 1")
    stand_in(checkout, "dockerd", "exit 0")
    done = call(checkout, "destroy", AIRLOCK_YES="1")
    assert done.returncode == 1
    assert "nothing was removed" in done.stderr
    assert (checkout / ".env").exists()


@pytest.mark.parametrize("answer", ["no\n", ""])
def test_destroy_asks_first(checkout: Path, answer: str) -> None:
    done = call(checkout, "destroy", answer)
    assert done.returncode == 1
    assert "nothing was removed" in done.stdout
    assert (checkout / ".env").exists()


def test_a_setting_of_the_shell_does_not_outweigh_the_one_in_env(checkout: Path) -> None:
    stand_in(checkout, "docker", 'case "$*" in *version*) echo 2.40.0;; *) echo "password=$POSTGRES_PASSWORD";; esac')
    done = call(checkout, "compose", POSTGRES_PASSWORD="of another stack")
    assert done.stdout == "password=\n"


def test_down_does_not_say_that_nothing_was_started_while_an_airlock_runs(checkout: Path) -> None:
    stand_in(checkout, "docker", "echo 0123456789ab")
    (checkout / ".env").unlink()
    done = call(checkout, "down")
    assert done.returncode == 1
    assert "but not from here" in done.stderr


def test_the_commit_is_known_though_somebody_else_owns_the_checkout(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    git = ["git", "-C", str(checkout), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    monkeypatch.setattr(images, "ROOT", checkout)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert images.code_commit() == commit
    shutil.rmtree(checkout / ".git")
    assert images.code_commit() == "unknown"
    assert "not a git repository" in capsys.readouterr().err


def test_pip_and_uv_on_the_host_are_told_the_index_of_env(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / ".env").write_text("PYPI_INDEX=https://mirror.example/simple\n")
    show = "--eval=show: ; @echo $$PIP_INDEX_URL $$UV_DEFAULT_INDEX"
    done = subprocess.run(["make", "-C", tmp_path, "-s", show, "show"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["https://mirror.example/simple"] * 2


def test_make_alone_lists_its_words() -> None:
    done = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True)
    for word in ("demo", "up", "down", "destroy", "urls", "test", "test-unit"):
        assert f"  make {word} " in done.stdout


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
