"""What can be seen of Airflow from outside: whether its parts live, which runs wait, which watches run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import requests

from include.airflow_api import AirflowApi
from include.airflow_pages import run_page
from include.incidents import AGAIN_AFTER, AIRLOCK, Kind, Report, moment
from include.project import Project

# A restart of Airflow takes as long, and is no trouble.
GRACE = timedelta(seconds=60)
# These have minutes of their own, in the project.
WITHOUT_GRACE = frozenset({"queue", "late"})
PARTS: tuple[Kind, ...] = ("scheduler", "triggerer", "dag_processor")

Trouble = tuple[str, Kind]


class AirflowSight:
    """Looks at Airflow's API, and says what has changed since the last look.

    `due` is the next moment, UTC, at which a run that goes on will have taken too long.
    """

    def __init__(self, api: AirflowApi, public_url: str) -> None:
        self._api = api
        self._public_url = public_url.rstrip("/")
        self.due: datetime | None = None
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
            elif now - self._since.setdefault(trouble, now) >= self._grace(trouble) and self._is_due(trouble, now):
                self._told[trouble] = now
                reports.append(wrong)
        return reports

    def _grace(self, trouble: Trouble) -> timedelta:
        return timedelta(0) if trouble[1] in WITHOUT_GRACE else GRACE

    def _is_due(self, trouble: Trouble, now: datetime) -> bool:
        return trouble not in self._told or now - self._told[trouble] >= AGAIN_AFTER

    def _look(self, projects: dict[str, Project], now: datetime) -> dict[Trouble, Report | None]:
        """Each kind of trouble that this look can tell of: what is wrong, or None."""
        self.due = None
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
            yield (name, "late"), self._late(project, [_waits(row, "queued_at") for row in runs], now)
            watch = f"{name}__watch"
            if watch in paused:
                yield (name, "watch"), None if paused[watch] or watch in active else self._no_watch(name, now)

    def _stuck(self, project: Project, waiting: list[tuple[str, str, datetime | None]], now: datetime) -> Report | None:
        found = self._too_long(project, waiting, timedelta(minutes=project.queue_minutes), now)
        if found is None:
            return None
        why = f"{found[1]} has waited for its turn since {moment(found[0])}"
        next_step = "see which run holds the pool `gpu`, and whether its container still works"
        return self._of_run(project, "queue", found[1], why, next_step, now)

    def _late(self, project: Project, runs: list[tuple[str, str, datetime | None]], now: datetime) -> Report | None:
        """A run that goes on too long. Not by Airflow's DeadlineAlert: with one, 3.3.2 cannot clear a run any more."""
        found = self._too_long(project, runs, timedelta(minutes=project.late_minutes), now)
        if found is None:
            return None
        minutes = project.late_minutes
        why = f"{found[1]} was asked for at {moment(found[0])}, more than {minutes} minutes ago, and goes on"
        next_step = "see in the log of its running task how far it is; mark it failed to give it up"
        return self._of_run(project, "late", found[1], why, next_step, now)

    def _too_long(
        self, project: Project, runs: list[tuple[str, str, datetime | None]], allowed: timedelta, now: datetime
    ) -> tuple[datetime, str] | None:
        """The retrain that has been there for longest, if for longer than allowed; a backfill's may take its time."""
        mine = [
            (since, run)
            for dag, run, since in runs
            if dag == f"{project.name}__retrain" and since is not None and not run.startswith("backfill__")
        ]
        coming = [since + allowed for since, _ in mine if since + allowed > now]
        self.due = min([*coming, *([self.due] if self.due is not None else [])], default=None)
        return min(mine) if mine and min(mine)[0] + allowed <= now else None

    def _of_run(self, project: Project, kind: Kind, run: str, why: str, next_step: str, now: datetime) -> Report:
        link = run_page(self._public_url, f"{project.name}__retrain", run)
        return Report(project=project.name, kind=kind, at=now, why=why, next_step=next_step, link=link)

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
