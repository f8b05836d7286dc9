from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from trainer import main
from trainer.errors import ConfigError, DataError, GpuError, UnavailableError


@pytest.fixture
def run_check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Callable[[str], Any]], tuple[int, Any]]:
    """Runs `trainer check` with a body of the test's; the exit code and what the result file holds."""
    path = tmp_path / "results" / "result.json"
    monkeypatch.setenv("RESULT_PATH", str(path))
    monkeypatch.setenv("DEVICE", "cpu")
    before = signal.getsignal(signal.SIGTERM)

    def run(body: Callable[[str], Any]) -> tuple[int, Any]:
        module = ModuleType("trainer.check")
        module.check = body  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "trainer.check", module)
        try:
            code = main.main(["check"])
        finally:
            signal.signal(signal.SIGTERM, before)
        assert sorted(path.parent.iterdir()) == [path]
        return code, json.loads(path.read_text())

    return run


def test_a_result_is_written_and_the_code_is_zero(run_check: Any) -> None:
    assert run_check(lambda device: {"device": device}) == (0, {"device": "cpu"})


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (DataError("one class"), 65, "data"),
        (UnavailableError("S3 is away"), 69, "unavailable"),
        (GpuError("no driver"), 71, "gpu"),
        (ConfigError("no such key"), 78, "config"),
    ],
)
def test_each_kind_of_failure_has_its_code_and_its_message(run_check: Any, error: Any, code: int, kind: str) -> None:
    def fail(_device: str) -> None:
        raise error

    assert run_check(fail) == (code, {"error": {"kind": kind, "message": str(error)}})


def test_what_is_known_of_the_run_stands_in_the_result_of_a_failure_too(
    run_check: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(known: dict[str, Any]) -> dict[str, Any]:
        known["run_id"] = "abc"
        raise DataError("one class")

    monkeypatch.setattr(main, "_check", refuse)
    assert run_check(None) == (65, {"error": {"kind": "data", "message": "one class"}, "run_id": "abc"})


def test_a_full_disk_is_no_bug_and_is_tried_again(run_check: Any) -> None:
    def fail(_device: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/cache/runs/1/last.pt")

    code, result = run_check(fail)
    assert (code, result["error"]["kind"]) == (69, "unavailable")
    assert "the disk is full: writing /cache/runs/1/last.pt failed" in result["error"]["message"]


def test_a_bug_is_internal_and_its_message_holds_no_secret(
    run_check: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-secret")

    def fail(_device: str) -> None:
        raise RuntimeError("signed with canary-secret")

    code, result = run_check(fail)
    assert (code, result["error"]["kind"]) == (70, "internal")
    assert "canary-secret" not in json.dumps(result)
    assert "canary-secret" not in capsys.readouterr().err


def test_sigterm_interrupts_even_code_that_swallows_exceptions(run_check: Any) -> None:
    def stopped(_device: str) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Exception:
            pytest.fail("swallowed")

    code, result = run_check(stopped)
    assert (code, result["error"]["kind"]) == (143, "interrupted")


def test_a_wrong_environment_is_told_in_the_result_file(run_check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVICE", "tpu")
    code, result = run_check(lambda _device: {})
    assert (code, result["error"]["kind"]) == (78, "config")
    assert "DEVICE" in result["error"]["message"]


def test_an_unknown_command_is_a_wrong_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RESULT_PATH", str(tmp_path / "result.json"))
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert main.main(["trian"]) == 78
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "trian" in (tmp_path / "result.json").read_text()
