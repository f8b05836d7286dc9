"""What the end of a run reports to the watchdog, and a bucket that cannot be listed."""

from __future__ import annotations

from pathlib import Path

import pytest
import run_reports
from bucket_reports import AGAIN_SECONDS, UNREACHABLE_SECONDS, BucketReports

from include.alert_spool import Spool
from include.incidents import Report


@pytest.fixture(autouse=True)
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spool:
    monkeypatch.setenv("AIRLOCK_ALERTS_DIR", str(tmp_path))
    return Spool(tmp_path)


def broken(spool: Spool) -> list[Report]:
    return [report for _, report in spool.waiting() if not report.well]


def well(spool: Spool) -> set[str]:
    return {report.kind for _, report in spool.waiting() if report.well}


@pytest.mark.parametrize(
    ("dag_id", "task", "kind", "project"),
    [
        ("digits__retrain", "train", "retrain", "digits"),
        ("digits__retrain", None, "retrain", "digits"),
        ("digits__retrain", "rollback", "rollback", "digits"),
        ("digits__watch", "snapshot", "snapshot", "digits"),
        ("airlock__reconcile", "reconcile", "reconcile", "airlock"),
    ],
)
def test_a_failed_run_is_reported_with_its_outcome_and_its_address(
    spool: Spool, dag_id: str, task: str | None, kind: str, project: str
) -> None:
    run_reports.failed(dag_id, "manual__1+00:00", task, "train failed: out of memory")
    (report,) = broken(spool)
    assert (report.project, report.kind, report.why) == (project, kind, "train failed: out of memory")
    assert report.link.endswith(f"/dags/{dag_id}/runs/manual__1%2B00%3A00")
    assert report.next_step


def test_a_rollback_that_a_person_has_triggered_is_no_trouble(spool: Spool) -> None:
    run_reports.failed("airlock__rollback", "manual__1", "put_back", "put_back failed: no such release")
    assert broken(spool) == []


def test_a_good_run_ends_the_trouble_of_its_project_and_a_superseded_one_proves_nothing(spool: Spool) -> None:
    run_reports.ended_well("digits__retrain", "superseded: the snapshot x is newer")
    assert well(spool) == set()
    run_reports.ended_well("digits__retrain", "kept champion")
    assert well(spool) == {"retrain", "rollback", "late", "queue", "approval"}


def test_a_bucket_is_reported_when_it_is_away_for_a_minute_once_an_hour_and_when_it_is_back(spool: Spool) -> None:
    reports = BucketReports("digits")
    reports.succeeded()
    reports.succeeded()
    assert [report.well for _, report in spool.waiting()] == [True], "of an outage before its start it cannot know"
    reports.failed("S3 does not answer", 100)
    assert broken(spool) == []
    for after in (UNREACHABLE_SECONDS, UNREACHABLE_SECONDS + 9, UNREACHABLE_SECONDS + AGAIN_SECONDS):
        reports.failed("S3 does not answer", 100 + after)
    assert [report.why for report in broken(spool)] == ["S3 does not answer"] * 2
    reports.succeeded()
    assert [report.well for _, report in spool.waiting()] == [True, False, False, True]


def test_without_a_directory_nothing_is_reported_and_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRLOCK_ALERTS_DIR")
    run_reports.failed("digits__retrain", "manual__1", "train", "train failed")
