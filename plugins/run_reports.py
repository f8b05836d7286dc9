"""What a run's end means for alerts: trouble that began, or that is over."""

from __future__ import annotations

from airflow.configuration import conf

from include.airflow_pages import run_page
from include.alert_spool import spool
from include.incidents import AIRLOCK, Kind
from include.run_outcome import SUPERSEDED

# What a good end of a run ends, by the last part of its DAG's id.
ENDS: dict[str, tuple[Kind, ...]] = {
    "retrain": ("retrain", "rollback", "late", "queue", "approval"),
    "watch": ("snapshot",),
    "reconcile": ("reconcile",),
    "housekeeping": ("housekeeping",),
}
NEXT: dict[Kind, str] = {
    "retrain": "read the log of the failed task; when the cause is mended, clear the task to go on from there",
    "rollback": "read why in the log; clear `deploy` to try the same weights again, or train anew",
    "snapshot": "mend what the log of the failed task names; changes of the bucket are not lost",
    "reconcile": "read in the log which project, and why; `make up` does the same once more",
    "housekeeping": "read the log of the failed task; nothing that serves depends on it",
}


def failed(dag_id: str, run_id: str, task_id: str | None, outcome: str) -> None:
    """A run has failed; `task_id` is the task whose words `outcome` has, None where none has said any."""
    project, _, dag = dag_id.rpartition("__")
    kind = next((kind for kind in ENDS.get(dag, ())), None)
    if kind is None:
        return
    if task_id == "rollback":
        kind = "rollback"
    link = run_page(conf.get("api", "base_url", fallback=""), dag_id, run_id)
    reports = spool()
    if dag == "retrain":
        # It goes on no more, and waits for nobody.
        reports.well(project, "late")
        reports.well(project, "approval")
    reports.broken(project or AIRLOCK, kind, outcome, NEXT[kind], link)


def ended_well(dag_id: str, outcome: str) -> None:
    """A run has ended well. One that was superseded proves nothing."""
    project, _, dag = dag_id.rpartition("__")
    if outcome.startswith(SUPERSEDED):
        return
    for kind in ENDS.get(dag, ()):
        spool().well(project or AIRLOCK, kind)
