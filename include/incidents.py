"""Incidents: one for each project and kind of trouble, opened, counted up, and closed by one "recovered".

Pure of I/O and of the clock: `include.watchdog` feeds it reports and sends what it says.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

# In a project's place: trouble of Airflow itself.
AIRLOCK = "airlock"
# Trouble that goes on is told again after so long, not at each report.
AGAIN_AFTER = timedelta(hours=1)
# A closed incident is kept so long, to be looked at.
KEPT = timedelta(days=7)

Severity = Literal["error", "warning"]
Kind = Literal[
    "retrain", "rollback", "late", "queue", "snapshot", "watch", "bucket", "approval",
    "reconcile", "housekeeping", "scheduler", "triggerer", "dag_processor", "api", "channel",
]  # fmt: skip

WHAT: dict[Kind, str] = {
    "retrain": "a retrain failed",
    "rollback": "a release was rolled back",
    "late": "a retrain is late",
    "queue": "a run is stuck in the queue",
    "snapshot": "no snapshot could be taken",
    "watch": "the watch has stopped",
    "bucket": "the bucket cannot be reached",
    "approval": "a release waits for an approval",
    "reconcile": "what should serve could not be put back",
    "housekeeping": "housekeeping failed",
    "scheduler": "Airflow's scheduler has stopped",
    "triggerer": "Airflow's triggerer has stopped",
    "dag_processor": "Airflow's DAG processor has stopped",
    "api": "Airflow does not answer",
    "channel": "alerts cannot be delivered",
}
SEVERITY: dict[Kind, Severity] = {"late": "warning", "queue": "warning", "approval": "warning"}


def moment(at: datetime) -> str:
    """A time in words, for a person."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


class Report(BaseModel):
    """What somebody saw of one kind of trouble: that it is there, or (`well`) that it is not."""

    model_config = ConfigDict(frozen=True)

    project: str
    kind: Kind
    at: datetime
    well: bool = False
    why: str = ""
    next_step: str = ""
    link: str = ""


class Incident(BaseModel):
    """Trouble of one kind in one project, from its first report to its end."""

    model_config = ConfigDict(frozen=True)

    id: str
    project: str
    kind: Kind
    since: datetime
    last_at: datetime
    told_at: datetime
    count: int = 1
    report: Report
    closed_at: datetime | None = None

    @property
    def severity(self) -> Severity:
        """How urgent it is."""
        return SEVERITY.get(self.kind, "error")

    @property
    def what(self) -> str:
        """The kind of trouble, in words."""
        return WHAT[self.kind]


class Incidents(BaseModel):
    """Every incident that is open, and the closed ones of the last days, the newest last."""

    model_config = ConfigDict(frozen=True)

    incidents: tuple[Incident, ...] = ()
    number: int = Field(default=0, description="of the last incident")

    @property
    def open(self) -> tuple[Incident, ...]:
        """Those that go on."""
        return tuple(incident for incident in self.incidents if incident.closed_at is None)

    def find(self, project: str, kind: Kind) -> Incident | None:
        """The open incident of this kind, or None."""
        return next((one for one in self.open if (one.project, one.kind) == (project, kind)), None)

    def take(self, report: Report) -> tuple[Incidents, Incident | None]:
        """Take a report in; with the incident where a person is to be told of it: opened, going on, or recovered."""
        there = self.find(report.project, report.kind)
        if report.well:
            if there is None:
                return self, None
            closed = there.model_copy(update={"closed_at": report.at})
            return self._with(closed, report.at), closed
        if there is None:
            number = self.number + 1
            opened = Incident(
                id=f"{report.at:%y%m%d}-{number}",
                project=report.project,
                kind=report.kind,
                since=report.at,
                last_at=report.at,
                told_at=report.at,
                report=report,
            )
            return self._with(opened, report.at).model_copy(update={"number": number}), opened
        again = report.at - there.told_at >= AGAIN_AFTER
        told = {"told_at": report.at} if again else {}
        counted = there.model_copy(update={"count": there.count + 1, "last_at": report.at, "report": report, **told})
        return self._with(counted, report.at), counted if again else None

    def _with(self, incident: Incident, now: datetime) -> Incidents:
        others = [
            one
            for one in self.incidents
            if one.id != incident.id and (one.closed_at is None or now - one.closed_at < KEPT)
        ]
        return self.model_copy(update={"incidents": (*others, incident)})
