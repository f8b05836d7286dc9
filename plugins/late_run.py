"""Reports a run that has missed its deadline, and still goes on."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from airflow.configuration import conf

from include.alert_spool import spool


async def report_late(project: str, minutes: int, context: dict[str, Any] | None = None) -> str:
    """The callback of the deadline; returns what it did.

    Airflow calls it for a run that has failed meanwhile as well, which has said so itself. The runs of a backfill are
    all queued at its beginning: late is what they are meant to be.
    """
    run = (context or {}).get("dag_run", {})
    if run.get("state") not in {"queued", "running"} or run.get("run_type") == "backfill":
        return "no alert: the run has ended, or is a backfill's"
    run_id, dag_id = run["dag_run_id"], run["dag_id"]
    spool().broken(
        project,
        "late",
        f"{run_id} is {run['state']} {minutes} minutes after it was asked for",
        "see in the log of its running task how far it is; mark it failed to give it up",
        f"{conf.get('api', 'base_url', fallback='')}/dags/{dag_id}/runs/{quote(run_id, safe='')}",
    )
    return "reported"
