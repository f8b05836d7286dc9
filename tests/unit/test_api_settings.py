from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from api.errors import ConfigError
from api.settings import EvaluateSettings, ServeSettings, read

IMAGE = Path(__file__).parents[2] / "images" / "api"
SECRET = "a-secret-that-nobody-may-read"
STORE = {
    "PROJECT": "digits",
    "S3_ENDPOINT_URL": "http://s3:9000",
    "AWS_ACCESS_KEY_ID": "api",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "DVC_BUCKET": "dvc",
    "MLFLOW_TRACKING_URI": "http://mlflow:5000",
}
SERVE = {**STORE, "RELEASE_ID": "r1", "MLFLOW_RUN_ID": "a" * 32, "IMAGE_ID": "sha256:1", "ROOT_PATH": "/digits"}


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*SERVE, "AWS_REGION", "CHALLENGER_RUN_ID", "CHAMPION_RUN_ID", "RESULT_PATH"):
        monkeypatch.delenv(name, raising=False)


def given(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def test_serve_reads_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, SERVE)
    settings = read(ServeSettings)
    assert (settings.run_id, settings.root_path, settings.s3_region) == ("a" * 32, "/digits", "us-east-1")
    assert SECRET not in repr(settings)


def test_every_problem_is_told_at_once_and_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, {**SERVE, "MLFLOW_RUN_ID": "../../etc", "S3_ENDPOINT_URL": f"s3://{SECRET}", "PROJECT": ""})
    monkeypatch.delenv("DVC_BUCKET")
    with pytest.raises(ConfigError) as refusal:
        read(ServeSettings)
    message = str(refusal.value)
    assert all(name in message for name in ("MLFLOW_RUN_ID", "S3_ENDPOINT_URL", "PROJECT", "DVC_BUCKET"))
    assert "4 places" in message
    assert SECRET not in message


def test_a_champion_may_be_missing_but_not_malformed(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, {**STORE, "CHALLENGER_RUN_ID": "b" * 32, "CHAMPION_RUN_ID": ""})
    assert read(EvaluateSettings).champion_run_id == ""
    monkeypatch.setenv("CHAMPION_RUN_ID", "latest")
    with pytest.raises(ConfigError, match="CHAMPION_RUN_ID"):
        read(EvaluateSettings)


def run(command: str, **environment: str) -> tuple[int, dict[str, str]]:
    """Exit code and only log line of a command in a process of its own."""
    path = {"PYTHONPATH": str(IMAGE), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-m", "api", command], env=path | environment, capture_output=True, text=True, check=False
    )
    return done.returncode, json.loads(done.stderr)


def test_serve_with_a_wrong_environment_exits_with_78_and_one_line() -> None:
    code, line = run("serve")
    assert (code, line["event"], line["kind"]) == (78, "failed", "config")
    assert "RELEASE_ID" in line["message"]


def test_evaluate_with_a_wrong_environment_leaves_the_error_as_its_result(tmp_path: Path) -> None:
    code, _ = run("evaluate", RESULT_PATH=str(tmp_path / "result.json"))
    assert code == 78
    error = json.loads((tmp_path / "result.json").read_text())["error"]
    assert error["kind"] == "config"
    assert "CHALLENGER_RUN_ID" in error["message"]


def test_an_unknown_command_exits_with_78_and_names_those_there_are() -> None:
    code, line = run("train")
    assert code == 78
    assert "serve, evaluate" in line["message"]
