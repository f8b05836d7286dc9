"""What stops is told by the watchdog outside of Airflow, and so is what becomes late meanwhile."""

from __future__ import annotations

import pytest

from tests.e2e.lab import Lab, pictures
from tests.e2e.system import System, alerts, await_


def await_told(*troubles: str) -> None:
    """Waits until each is an open incident."""
    await_(f"{troubles} to be told", lambda: all(f"{trouble}, since " in alerts() for trouble in troubles), 240)


def await_over(*troubles: str) -> None:
    """Waits until none is an open incident any more."""
    await_(f"{troubles} to be over", lambda: not any(trouble in alerts() for trouble in troubles), 240)


@pytest.mark.extended
def test_what_is_away_or_has_stopped_is_told_and_a_run_that_waits_and_becomes_late_meanwhile_and_the_end_of_each(
    lab: Lab, system: System
) -> None:
    lab.configure(late_minutes=1, queue_minutes=1)
    lab.put(pictures()[:200])
    late, waits = f"{lab.name}: a retrain is late", f"{lab.name}: a run is stuck in the queue"
    stopped = "airlock: Airflow's scheduler has stopped", "airlock: Airflow's triggerer has stopped"
    with system.held("gpu"):
        run = lab.await_new_retrain([])
        system.await_task(run, "train", "scheduled")
        with system.down("airflow-scheduler"), system.down("airflow-triggerer"):
            await_told(late, waits, *stopped)
        system.give_up(run)
    await_over(late, waits, *stopped)
    away = f"{lab.name}: the bucket cannot be reached"
    with system.down("s3"):
        await_told(away)
    await_over(away)
