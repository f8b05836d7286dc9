"""An automatic run that has waited too long is superseded; what a person asked for never is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import superseding
from airflow.sdk.exceptions import AirflowSkipException

import include.snapshots

OLDER, NEWER = "20260903T101500123Z-aaaaaaaa", "20260904T101500124Z-bbbbbbbb"


def context(said: list[str], run_type: str = "asset_triggered", cleared: int = 0, attempt: int = 1) -> Any:
    instance = SimpleNamespace(try_number=attempt, xcom_push=lambda *, key, value: said.append(value))
    return {"dag_run": SimpleNamespace(run_type=run_type, clear_number=cleared), "ti": instance}


@pytest.fixture(autouse=True)
def _catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(superseding, "get_settings", lambda: None)
    monkeypatch.setattr(include.snapshots, "snapshot_ids", lambda _, project: [OLDER, NEWER])


def test_an_automatic_run_on_an_older_snapshot_is_skipped_and_says_so() -> None:
    said: list[str] = []
    with pytest.raises(AirflowSkipException, match=f"superseded: the snapshot {NEWER} is newer"):
        superseding.skip_if_superseded(context(said), "digits", OLDER)
    assert said == [f"superseded: the snapshot {NEWER} is newer, and has a run of its own"]


@pytest.mark.parametrize(
    "run",
    [{"run_type": "backfill"}, {"run_type": "manual"}, {"cleared": 1}, {"attempt": 2}],
    ids=["backfill", "by hand", "cleared", "second attempt"],
)
def test_what_a_person_asked_for_or_has_begun_is_never_superseded(run: dict[str, Any]) -> None:
    superseding.skip_if_superseded(context([], **run), "digits", OLDER)


def test_the_newest_snapshot_is_trained() -> None:
    superseding.skip_if_superseded(context([]), "digits", NEWER)
