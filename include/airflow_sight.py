"""What can be seen of Airflow from outside: whether its parts live, which runs wait, which watches run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import requests

from include.airflow_api import AirflowApi
from include.incidents import AGAIN_AFTER, AIRLOCK, Kind, Report
from include.project import Project

log = logging.getLogger(__name__)

# A restart of Airflow takes as long, and is no trouble.
GRACE = timedelta(seconds=60)
PARTS: tuple[Kind, ...] = ("scheduler", "triggerer", "dag_processor")

Trouble = tuple[str, Kind]


class AirflowSight:
    """Looks at Airflow's API, and says what has changed since the last look."""

    def __init__(self, api: AirflowApi, public_url: str) -> None:
        self._api = api
        self._public_url = public_url.rstrip("/")
        self._since: dict[Trouble, datetime] = {}
        self._told: dict[Trouble, datetime] = {}

    def look(self, projects: dict[str, Project], now: datetime) -> list[Report]:
        """Reports of what is wrong longer than its grace, told once an hour, and of what is well (again)."""
        found = self._look(projects, now)
        reports = []
        for trouble, wrong in found.items():
            if wrong is None:
                self._since.pop(trouble, None)
                self._told.pop(trouble, None)
                reports.append(Report(project=trouble[0], kind=trouble[1], at=now, well=True))
            elif now - self._since.setdefault(trouble, now) >= GRACE and self._is_due(trouble, now):
                self._told[trouble] = now
                reports.append(wrong)
        return reports

    def _is_due(self, trouble: Trouble, now: datetime) -> bool:
        return trouble not in self._told or now - self._told[trouble] >= AGAIN_AFTER

    def _look(self, projects: dict[str, Project], now: datetime) -> dict[Trouble, Report | None]:
        """Each kind of trouble that this look can tell of: what is wrong, or None."""
        try:
            health = self._api.health()
            found: dict[Trouble, Report | None] = {(AIRLOCK, part): self._part(health, part, now) for part in PARTS}
            found |= dict(self._runs(projects, now))
        except (requests.RequestException, ValueError, KeyError) as error:
            words = " ".join(str(error).split())[:200]
            why = f"{self._api.url} does not answer as it should ({words})"
            return {(AIRLOCK, "api"): self._report(AIRLOCK, "api", why, now, "airflow-api-server")}
        return {**found, (AIRLOCK, "api"): None}

    def _part(self, health: dict[str, Any], part: Kind, now: datetime) -> Report | None:
        state = health[part]
        if state["status"] == "healthy":
            return None
        last = state.get(f"latest_{part}_heartbeat")
        why = f"it has shown no sign of life since {last} " if last else "it has shown no sign of life yet"
        return self._report(AIRLOCK, part, why.strip(), now, f"airflow-{part.replace('_', '-')}")

    def _report(self, project: str, kind: Kind, why: str, now: datetime, service: str) -> Report:
        next_step = f"`scripts/compose ps {service}` and `scripts/compose logs --tail 50 {service}`, then `make up`"
        return Report(project=project, kind=kind, at=now, why=why, next_step=next_step, link=self._public_url)

    def _runs(self, projects: dict[str, Project], now: datetime) -> Iterator[tuple[Trouble, Report | None]]:
        paused = {row["dag_id"]: row["is_paused"] for row in self._api.all("/dags", "dags")}
        runs = self._api.all("/dags/~/dagRuns?state=running&state=queued", "dag_runs")
        waiting = [_waits(row, "queued_at") for row in runs if row["state"] == "queued"]
        tasks = self._api.all("/dags/~/dagRuns/~/taskInstances?state=scheduled&state=queued", "task_instances")
        waiting += [_waits(row, "queued_when" if row["queued_when"] else "scheduled_when") for row in tasks]
        active = {row["dag_id"] for row in runs}
        for name, project in projects.items():
            yield (name, "queue"), self._stuck(project, waiting, now)
            watch = f"{name}__watch"
            if watch in paused:
                yield (name, "watch"), None if paused[watch] or watch in active else self._no_watch(name, now)

    def _stuck(self, project: Project, waiting: list[tuple[str, str, datetime | None]], now: datetime) -> Report | None:
        mine = [(since, run) for dag, run, since in waiting if dag == f"{project.name}__retrain" and since]
        mine = [(since, run) for since, run in mine if not run.startswith("backfill__")]
        if not mine or now - min(mine)[0] < timedelta(minutes=project.queue_minutes):
            return None
        since, run = min(mine)
        return Report(
            project=project.name,
            kind="queue",
            at=now,
            why=f"{run} has waited for its turn since {since.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC",
            next_step="see which run holds the pool `gpu`, and whether its container still works",
            link=f"{self._public_url}/dags/{project.name}__retrain/runs/{run}",
        )

    def _no_watch(self, project: str, now: datetime) -> Report:
        return Report(
            project=project,
            kind="watch",
            at=now,
            why=f"{project}__watch has no run, so a change of the bucket starts nothing",
            next_step=f"look at the last runs of {project}__watch; clear the failed task",
            link=f"{self._public_url}/dags/{project}__watch",
        )


def _waits(row: dict[str, Any], key: str) -> tuple[str, str, datetime | None]:
    since = datetime.fromisoformat(row[key]) if row[key] else None
    return row["dag_id"], row["dag_run_id"], since
