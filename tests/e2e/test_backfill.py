"""Backfills and automatic runs beside each other, and one automatic run that supersedes another."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from tests.e2e.lab import Lab, pictures, take_a_snapshot
from tests.e2e.readme import PROJECT, block, shell
from tests.e2e.system import ROOT, Run, System, alerts, await_


@pytest.fixture(scope="module", autouse=True)
def project(lab: Lab) -> None:
    """A project with the lab's settings."""
    lab.configure()


def note(system: System, run: Run) -> str:
    """A run's note."""
    row = system.get(f"/dags/{run.dag_id}/dagRuns/{quote(run.run_id, safe='')}")
    return str(row["note"])


def test_an_automatic_run_that_waited_is_superseded_by_a_newer_snapshot_and_the_watch_goes_on(
    lab: Lab, system: System
) -> None:
    lab.put(pictures()[:400])
    with system.held("gpu"):
        waits = lab.await_new_retrain([])
        system.await_task(waits, "train", "scheduled")
        lab.put(pictures()[400:420])
        newer = lab.await_new_retrain([waits])
        assert newer.state == "queued", "a project's runs go one after the other"
        # With a run in the queue the watch waits for the next change, as ever.
        lab.put(pictures()[420:440])
        newest = lab.await_new_retrain([waits, newer])
    assert system.await_end(waits).state == system.await_end(newer).state == "success"
    assert system.tasks(waits)["train"] == "skipped"
    assert system.tasks(newer)["choose_snapshot"] == "skipped"
    assert note(system, waits).startswith("Outcome: superseded: the snapshot ")
    assert system.await_end(newest).state == "success"
    assert system.tasks(newest)["promote"] == "success"
    served = system.metadata(lab.name)["release_id"]
    assert note(system, newest).startswith(f"Outcome: {served} serves, deploy, the first model: ")


def test_a_backfill_trains_what_no_run_has_and_compares_without_a_deploy(lab: Lab, system: System) -> None:
    served, known = system.metadata(lab.name), lab.retrains()
    system.airflow("PATCH", f"/dags/{lab.name}__watch", {"is_paused": True})
    lab.put(pictures()[440:460])
    missed = take_a_snapshot(lab)
    none = asked(lab, "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z")
    assert system.airflow("POST", "/backfills/dry_run", none).json() == {"backfills": [], "total_entries": 0}
    refused = system.airflow("POST", "/backfills", none)
    assert refused.status_code == 422
    assert f"No runs to create for Dag {lab.name}__retrain in the range [2026-01-01" in refused.text
    made = system.airflow("POST", "/backfills", asked(lab, "2026-01-01T00:00:00Z", "2099-01-01T00:00:00Z"))
    assert made.status_code == 200, made.text
    (run,) = [one for one in lab.retrains() if one not in known]
    assert (run.partition_key, run.run_id.startswith("backfill__")) == (missed, True)
    run = system.await_end(run)
    assert run.state == "success", system.tasks(run)
    assert "not deployed, since it is a backfill" in note(system, run) or "kept champion" in note(system, run)
    assert system.metadata(lab.name) == served
    trained = system.mlflow_run(system.xcom(run, "train")["run_id"])
    parent = system.mlflow_run(trained["tags"]["mlflow.parentRunId"])
    assert parent["tags"]["backfill"] == trained["tags"]["backfill"]
    assert parent["metrics"]["accuracy_top1"] == trained["metrics"]["accuracy_top1"]
    assert trained["tags"]["triggered_by"] == "admin"
    await_("the backfill to be complete", lambda: not system.open_backfills(run.dag_id), 120)


def test_the_command_line_makes_a_backfill_that_runs_in_the_order_and_as_many_at_once_as_it_was_told(
    lab: Lab, system: System
) -> None:
    known = lab.retrains()
    command = block("backfill create").replace(PROJECT, lab.name).replace("2026-10-01", "2099-01-01")
    with system.held("gpu"):
        shell(f"{command.rstrip()} --reprocess-behavior completed --run-backwards", ROOT)
        made = sorted((run for run in lab.retrains() if run not in known), key=lambda run: str(run.partition_key))
        assert [run.partition_key for run in made] == sorted({run.partition_key for run in known}, key=str)
        system.await_task(made[-1], "train", "scheduled")
        states = [system.run(run.dag_id, run.run_id).state for run in made]
        assert states == ["queued"] * (len(made) - 1) + ["running"]
        system.cancel_backfill(made[-1].dag_id)
        system.give_up(made[-1])
    assert system.open_backfills(made[-1].dag_id) == []


def test_a_release_waits_for_a_person_who_sees_the_comparison_and_may_reject_it(lab: Lab, system: System) -> None:
    served = system.metadata(lab.name)
    lab.configure(approval="required", approvers=["ann"])
    await_("the DAG to ask for an approval", lambda: "approve" in task_ids(lab), 90)
    run = lab.manual(served["snapshot_id"], reason="a person decides")
    system.await_task(run, "approve", "awaiting_input")
    asked_for = system.get(approval_of(run))
    assert asked_for["subject"] == f"Release the new model of {lab.name}?"
    assert "**Right answers**" in asked_for["body"]
    assert "**What the new model answers**, by class" in asked_for["body"]
    assert f"{lab.name}: a release waits for an approval" in alerts()
    refused = system.airflow("PATCH", approval_of(run), {"chosen_options": ["Approve"], "params_input": {}})
    assert refused.status_code == 403, "only ann may"
    lab.configure(approvers=["admin"])
    # Airflow would go on to show the first question, to be answered by ann.
    system.clear(run, "approve")
    assert system.await_end(run).state == "failed"
    assert note(system, run).startswith("Outcome: approve failed: Airflow keeps the question of an earlier attempt")
    await_("the alert", lambda: f"{lab.name}: a retrain failed" in alerts(), 30)
    run = lab.manual(served["snapshot_id"], reason="a person decides")
    decide(system, run, "Reject")
    run = system.await_end(run)
    assert (run.state, system.tasks(run)["deploy"]) == ("success", "skipped")
    assert note(system, run).startswith("Outcome: rejected by admin: deploy: ")
    assert system.metadata(lab.name) == served
    await_("the alert to end", lambda: "waits for an approval" not in alerts(), 30)


def test_a_release_that_was_rejected_may_be_asked_for_again_and_goes_on_once_a_person_approves(
    lab: Lab, system: System
) -> None:
    run = lab.retrains()[0]
    system.clear(run, "approve", "deploy", "verify", "promote", "rollback")
    decide(system, run, "Approve")
    run = system.await_end(run)
    assert (run.state, system.tasks(run)["promote"]) == ("success", "success")
    assert system.metadata(lab.name)["run_id"] == system.xcom(run, "train")["run_id"]


def approval_of(run: Run) -> str:
    """Where Airflow's API has what a person is asked."""
    return f"/dags/{run.dag_id}/dagRuns/{quote(run.run_id, safe='')}/taskInstances/approve/-1/hitlDetails"


def decide(system: System, run: Run, option: str) -> None:
    """Answers for a person, once asked and, where Airflow asks again, again."""

    def counts() -> bool:
        state = system.tasks(run)["approve"]
        # Asked again by Airflow where its scheduler had not yet seen the end of the process that asked.
        if state == "awaiting_input":
            answer = system.airflow("PATCH", approval_of(run), {"chosen_options": [option], "params_input": {}})
            assert answer.status_code in (200, 404, 409), answer.text
        return state == "success"

    await_(f"the answer {option} to count", counts, 120)


def task_ids(lab: Lab) -> list[str]:
    """The tasks of the project's retrain as Airflow knows it now."""
    return [row["task_id"] for row in lab.system.get(f"/dags/{lab.name}__retrain/tasks")["tasks"]]


def asked(lab: Lab, from_date: str, to_date: str) -> dict[str, Any]:
    """A backfill as the UI asks for it."""
    return {
        "dag_id": f"{lab.name}__retrain", "from_date": from_date, "to_date": to_date, "max_active_runs": 2,
        "reprocess_behavior": "none", "dag_run_conf": {"reason": "did it help?", "epochs": 1},
    }  # fmt: skip
