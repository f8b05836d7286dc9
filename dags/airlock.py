"""The DAGs that are there once, for all projects."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, Param, get_current_context, get_parsing_context, task
from run_listener import say_outcome

from dags.housekeeping import housekeeping_dag
from dags.no_retry import no_retry
from include.candidates import DeployError
from include.project import PROJECTS_FOLDER, load_all
from include.releases import ReleaseError
from include.s3 import ObjectChanged
from include.settings import get_settings
from include.watch_orders import Order, Wanted, give

log = logging.getLogger(__name__)

EVERY = timedelta(minutes=5)
ROLLBACK, RECONCILE, HOUSEKEEPING = "airlock__rollback", "airlock__reconcile", "airlock__housekeeping"
SETTLE = "airlock__settle"

ROLLBACK_DOC = """
### Puts an earlier release of a project back

**What starts it:** a person (Trigger). `project` is the project; `release` the release to put back, empty: the one that
served before.

**What it leaves:** that release behind `/<project>/predict`, proved as when it was new, and the alias `champion` on its
version. A release that is being tried is given up, whatever its run is doing: that run fails, and says so. While the
release that served still stands by, traffic goes back within a second; else its containers are started first.

**When it fails:** what served goes on serving. A wrong release is refused with those that there are; one that does not
prove itself, with the answer that was wrong.
"""

SETTLE_DOC = """
### Hurries or holds the watch of a project

**What starts it:** a person (Trigger), while an upload settles. `start now`: the snapshot is taken at the watch's next
look, without the settling; it is for one snapshot, and lapses after an hour. `hold`: no snapshot is taken until
`go on`.

**What it leaves:** the order in the bucket of records. The XCom `progress` of `<project>__watch` says at its next look,
`poll_seconds` later, that it follows it. What is trained, and what serves, it does not touch.

**When it fails:** the former order still holds; trigger it again.
"""

RECONCILE_DOC = """
### What should serve serves again

**What starts it:** the clock, every five minutes; `make up` does the same.

**What it leaves:** of each project the containers, the route and the alias `champion` that its release records ask for,
and no others: after a reboot, a `docker rm -f`, or a deploy that died. A deploy that goes on is left alone.

**When it fails:** the log names each project that could not be put back, and why; the others were.
"""


def airlock_dags() -> dict[str, DAG]:
    """The DAGs by id; in a task's process only the one that it needs."""
    asked = get_parsing_context().dag_id
    dags = {ROLLBACK: rollback_dag, RECONCILE: reconcile_dag, HOUSEKEEPING: housekeeping_dag, SETTLE: settle_dag}
    return {dag_id: make(dag_id) for dag_id, make in dags.items() if asked in (None, dag_id)}


def rollback_dag(dag_id: str) -> DAG:
    """The form that puts an earlier release back."""
    with DAG(
        dag_id,
        schedule=None,
        params={
            "project": _project_field(),
            "release": Param(
                None, type=["null", "string"], maxLength=100, description="Empty: the one that served before."
            ),
            "reason": Param(None, type=["null", "string"], maxLength=500, description="Kept in the release's history."),
        },
        description="Puts an earlier release of a project back",
        doc_md=ROLLBACK_DOC,
        tags=["airlock"],
    ) as dag:
        put_back()
    return dag


def settle_dag(dag_id: str) -> DAG:
    """The form that hurries or holds a watch."""
    with DAG(
        dag_id,
        schedule=None,
        params={
            "project": _project_field(),
            "order": Param(Wanted.NOW.value, type="string", enum=[each.value for each in Wanted]),
            "reason": Param(None, type=["null", "string"], maxLength=500, description="Said where the watch waits."),
        },
        description="Takes a project's snapshot now, or holds it",
        doc_md=SETTLE_DOC,
        tags=["airlock"],
    ) as dag:
        tell_the_watch()
    return dag


def _project_field() -> Param:
    names = sorted(load_all(PROJECTS_FOLDER).names)
    return Param(names[0] if len(names) == 1 else None, type="string", enum=names)


def reconcile_dag(dag_id: str) -> DAG:
    """The clock that puts back what should serve."""
    with DAG(
        dag_id,
        schedule=EVERY,
        start_date=datetime(2025, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        dagrun_timeout=timedelta(hours=1),
        description="What should serve serves again",
        doc_md=RECONCILE_DOC,
        tags=["airlock"],
    ) as dag:
        reconcile()
    return dag


@task(retries=2, retry_delay=timedelta(seconds=10))
def put_back() -> str:
    """Make the release serve again; returns what serves."""
    from include import putting_back
    from include.real_world import real_world

    context: Any = get_current_context()
    params, run, who = context["params"], context["dag_run"], _who(context)
    reason = f"{who}: {params['reason']}" if params["reason"] else who
    project = load_all(PROJECTS_FOLDER).or_defaults(params["project"])
    with no_retry(ReleaseError, DeployError):
        serves = putting_back.put_back(real_world(), project, params["release"] or None, run.run_id, reason)
    log.info("%s", serves)
    return say_outcome(context["ti"], serves)


@task(retries=2, retry_delay=timedelta(seconds=5))
def tell_the_watch() -> str:
    """Put the order where the watch looks; returns it in words."""
    from include.real_world import records

    context: Any = get_current_context()
    params, wanted = context["params"], Wanted(context["params"]["order"])
    order = Order(wanted=wanted, by=_who(context), at=datetime.now(UTC), reason=params["reason"])
    with no_retry(ObjectChanged):
        give(records(get_settings()), params["project"], order)
    return say_outcome(context["ti"], f"{params['project']}: {wanted.value}, {order.in_words}")


def _who(context: Any) -> str:
    return getattr(context["dag_run"], "triggering_user_name", None) or "a person"


@task
def reconcile() -> None:
    """Put back what should serve, of every project."""
    from include.reconcile import reconcile_all

    if not reconcile_all(get_settings(), patience=timedelta(0)):
        raise RuntimeError("some projects could not be reconciled: the log above says which, and why")
