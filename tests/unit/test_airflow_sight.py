"""What the watchdog sees of Airflow: parts that stopped, runs that wait too long, watches without a run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from include.airflow_api import AirflowApi
from include.airflow_sight import GRACE, AirflowSight
from include.incidents import Report
from include.project import Project

NOW = datetime(2026, 11, 29, 2, 0, tzinfo=UTC)
PROJECT = Project(name="digits", bucket="digits-train", queue_minutes=60)
HEALTHY = {"status": "healthy"}


class Airflow:
    """Airflow's API as far as it is asked; change what it says."""

    def __init__(self) -> None:
        self.health: dict[str, Any] = dict.fromkeys(("scheduler", "triggerer", "dag_processor"), HEALTHY)
        self.dags = [{"dag_id": f"digits__{dag}", "is_paused": False} for dag in ("watch", "retrain")]
        self.runs: list[dict[str, Any]] = [run("digits__watch", "running", NOW)]
        self.tasks: list[dict[str, Any]] = []
        self.up = True

    def get(self, url: str, headers: dict[str, str] | None = None, **_: object) -> Any:
        if not self.up:
            raise requests.ConnectionError("connection refused")
        path = url.removeprefix("http://airflow/api/v2").partition("?")[0]
        if path == "/monitor/health":
            return answer(self.health)
        if headers != {"Authorization": "Bearer t"}:
            return answer({}, 401)
        key = path.rpartition("/")[2]
        kinds = {"dags": self.dags, "dagRuns": self.runs, "taskInstances": self.tasks}
        names = {"dags": "dags", "dagRuns": "dag_runs", "taskInstances": "task_instances"}
        return answer({names[key]: kinds[key], "total_entries": len(kinds[key])})

    def post(self, url: str, json: dict[str, str], **_: object) -> Any:
        assert json == {"username": "watchdog", "password": "secret"}
        return answer({"access_token": "t"})


def run(dag_id: str, state: str, since: datetime, run_id: str = "asset_triggered__1") -> dict[str, Any]:
    return {"dag_id": dag_id, "dag_run_id": run_id, "state": state, "queued_at": since.isoformat()}


def answer(content: Any, status: int = 200) -> requests.Response:
    import json

    found = requests.Response()
    found.status_code, found._content = status, json.dumps(content).encode()
    return found


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Airflow:
    airflow = Airflow()
    monkeypatch.setattr(requests, "get", airflow.get)
    monkeypatch.setattr(requests, "post", airflow.post)
    return airflow


@pytest.fixture
def sight(airflow: Airflow) -> AirflowSight:
    return AirflowSight(AirflowApi("http://airflow", "secret"), "http://127.0.0.1:8080")


def broken(sight: AirflowSight, now: datetime) -> list[Report]:
    return [report for report in sight.look({"digits": PROJECT}, now) if not report.well]


def test_a_healthy_airflow_is_well_in_every_way(sight: AirflowSight) -> None:
    reports = sight.look({"digits": PROJECT}, NOW)
    assert {(report.project, report.kind) for report in reports if report.well} == {
        *(("airlock", kind) for kind in ("scheduler", "triggerer", "dag_processor", "api")),
        ("digits", "queue"),
        ("digits", "late"),
        ("digits", "watch"),
    }
    assert broken(sight, NOW) == []


@pytest.mark.parametrize("part", ["scheduler", "triggerer", "dag_processor"])
def test_a_part_that_has_stopped_is_told_after_its_grace_once(airflow: Airflow, sight: AirflowSight, part: str) -> None:
    airflow.health[part] = {"status": "unhealthy", f"latest_{part}_heartbeat": "2026-11-29T01:59:00Z"}
    assert broken(sight, NOW) == []
    (report,) = broken(sight, NOW + GRACE)
    assert (report.project, report.kind) == ("airlock", part)
    assert "no sign of life since 2026-11-29T01:59:00Z" in report.why
    assert f"logs --tail 50 airflow-{part.replace('_', '-')}" in report.next_step
    assert broken(sight, NOW + GRACE * 2) == [], "it was told"
    assert len(broken(sight, NOW + timedelta(hours=2))) == 1


def test_an_api_that_does_not_answer_is_told_and_says_nothing_of_the_rest(
    airflow: Airflow, sight: AirflowSight
) -> None:
    airflow.up = False
    sight.look({"digits": PROJECT}, NOW)
    (report,) = sight.look({"digits": PROJECT}, NOW + GRACE)
    assert (report.kind, report.well) == ("api", False)
    assert "connection refused" in report.why
    airflow.up = True
    assert all(report.well for report in sight.look({"digits": PROJECT}, NOW + GRACE * 2))


def test_a_run_that_waits_too_long_is_told_and_a_backfills_is_not(airflow: Airflow, sight: AirflowSight) -> None:
    since = NOW - timedelta(minutes=61)
    airflow.runs.append(run("digits__retrain", "queued", since, "backfill__1"))
    assert broken(sight, NOW) == []
    task = {
        "dag_id": "digits__retrain",
        "dag_run_id": "manual__1",
        "queued_when": None,
        "scheduled_when": since.isoformat(),
    }
    airflow.tasks.append(task)
    (report,) = broken(sight, NOW)
    assert (report.project, report.kind) == ("digits", "queue")
    assert "manual__1 has waited for its turn since 2026-11-29 00:59:00 UTC" in report.why


def test_a_run_that_goes_on_too_long_is_told_and_a_backfills_is_not(airflow: Airflow, sight: AirflowSight) -> None:
    asked_for = NOW - timedelta(minutes=PROJECT.late_minutes + 1)
    airflow.runs.append(run("digits__retrain", "running", asked_for, "backfill__1"))
    assert broken(sight, NOW) == []
    airflow.runs.append(run("digits__retrain", "running", asked_for, "manual__1+00:00"))
    (report,) = broken(sight, NOW)
    assert (report.project, report.kind) == ("digits", "late")
    assert "manual__1+00:00 was asked for at 2026-11-28 17:59:00 UTC, more than 480 minutes ago" in report.why
    assert report.link == "http://127.0.0.1:8080/dags/digits__retrain/runs/manual__1%2B00%3A00"


def test_the_next_look_is_due_when_a_run_that_goes_on_becomes_late(airflow: Airflow, sight: AirflowSight) -> None:
    sight.look({"digits": PROJECT}, NOW)
    assert sight.due is None
    earlier, later = NOW - timedelta(minutes=30), NOW - timedelta(minutes=10)
    airflow.runs += [run("digits__retrain", "running", earlier), run("digits__retrain", "running", later, "manual__2")]
    sight.look({"digits": PROJECT}, NOW)
    due = earlier + timedelta(minutes=PROJECT.late_minutes)
    assert sight.due == due
    assert "late" in {report.kind for report in sight.look({"digits": PROJECT}, due) if not report.well}
    assert sight.due == later + timedelta(minutes=PROJECT.late_minutes), "the next run's"


def test_a_watch_without_a_run_is_told_unless_a_person_has_paused_it(airflow: Airflow, sight: AirflowSight) -> None:
    airflow.runs.clear()
    airflow.dags[0]["is_paused"] = True
    broken(sight, NOW)
    assert broken(sight, NOW + GRACE) == []
    airflow.dags[0]["is_paused"] = False
    broken(sight, NOW + GRACE)
    (report,) = broken(sight, NOW + GRACE * 2)
    assert (report.project, report.kind) == ("digits", "watch")
