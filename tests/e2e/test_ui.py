"""A person, a browser, the Trigger form."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.e2e.browser import browser_page, log_in
from tests.e2e.system import Run, System

PROJECT = "digits"
DAG = f"{PROJECT}__retrain"


@pytest.fixture
def page(system: System) -> Iterator[Page]:
    """A browser that is logged in to Airflow."""
    with browser_page() as page:
        log_in(page, system)
        yield page


def open_form(page: Page, system: System) -> Locator:
    """The form of `digits__retrain`, which starts a run or a backfill."""
    page.goto(f"{system.airflow_url}/dags/{DAG}")
    page.get_by_role("button", name="Trigger").first.click()
    return page.get_by_role("dialog")


def trigger(page: Page, system: System, *, snapshot_id: str, epochs: int, reason: str) -> None:
    """Fills the form of `digits__retrain`, so that nothing is released, and sends it."""
    form = open_form(page, system)
    form.get_by_label("epochs").fill(str(epochs))
    expect(form.get_by_text("as usual", exact=True)).to_be_visible()
    form.get_by_role("combobox").fill("no")
    page.get_by_role("option", name="no", exact=True).click()
    form.locator("[name=element_reason]").fill(reason)
    form.get_by_text("Advanced Options").click()
    form.get_by_label("Partition Key").fill(snapshot_id)
    form.get_by_role("button", name="Trigger").click()
    expect(form).to_be_hidden()


def new_run(system: System, known: set[str]) -> Run:
    """The only run that is not among the known ones."""
    (run,) = [run for run in system.runs(DAG) if run.run_id not in known]
    return run


def conf(system: System, run: Run) -> Any:
    """What a run was told by its form."""
    return system.get(f"/dags/{DAG}/dagRuns/{quote(run.run_id, safe='')}")["conf"]


def test_the_airlock_page_in_airflows_navigation_shows_what_serves(page: Page, system: System) -> None:
    served = system.metadata(PROJECT)
    page.locator("a[href='/plugin/airlock']").click()
    project = page.frame_locator("iframe[title='Airlock']").get_by_role("region", name=PROJECT)
    expect(project.get_by_text(served["release_id"], exact=True).first).to_be_visible()
    expect(project.get_by_text(served["run_id"], exact=True)).to_be_visible()
    expect(project.get_by_role("row").filter(has_text=served["snapshot_id"])).to_be_visible()
    project.locator(f"a[href^='/dags/{DAG}/runs/']").click()
    page.wait_for_url(f"{system.airflow_url}/dags/{DAG}/runs/**")


def test_a_person_starts_a_run_of_a_chosen_snapshot_in_the_ui_and_its_reason_is_kept(
    page: Page, system: System
) -> None:
    known = {run.run_id for run in system.runs(DAG)}
    served = system.metadata(PROJECT)
    reason = f"tried in the browser {uuid.uuid4()}"
    trigger(page, system, snapshot_id=served["snapshot_id"], epochs=1, reason=reason)

    run = new_run(system, known)
    assert run.partition_key == served["snapshot_id"]
    assert conf(system, run) == dict.fromkeys(["learning_rate", "image_size"]) | {
        "epochs": 1,
        "deploy": "no",
        "reason": reason,
    }
    page.goto(f"{system.airflow_url}/dags/{DAG}/runs")
    expect(page.get_by_role("link", name=run.run_id)).to_be_visible()

    system.await_task(run, "train", "success")
    system.give_up(run)
    trained = system.mlflow_run(system.xcom(run, "train")["run_id"])
    assert trained["tags"]["reason"] == reason
    assert trained["tags"]["snapshot_id"] == served["snapshot_id"]
    assert system.xcom(run, "train")["metrics"]["epochs"] == 1


def test_a_person_makes_a_backfill_in_the_ui(page: Page, system: System) -> None:
    known = {run.run_id for run in system.runs(DAG)}
    form = open_form(page, system).filter(has_text="Backfill")
    form.get_by_text("Run this Dag for a range of dates").click()
    for date in ("2026/01/01", "2099/01/01"):
        form.get_by_text("Select date and time").first.click()
        # The field of a date before may still be closing.
        page.get_by_placeholder("YYYY/MM/DD").last.fill(date)
        page.get_by_placeholder("HH:mm").last.fill("00:00")
        form.get_by_text("Date Range").click()
    form.get_by_text("All Runs").click()
    form.locator("[name=element_reason]").fill("did it help?")
    form.get_by_text("Override parameters on existing runs").click()
    with system.held("gpu"):
        form.get_by_role("button", name="Run Backfill").click()
        expect(form).to_be_hidden()
        made = [run for run in system.runs(DAG) if run.run_id not in known]
        system.cancel_backfill(DAG)
        for run in made:
            system.give_up(run)
    assert system.metadata(PROJECT)["snapshot_id"] in {run.partition_key for run in made}
    assert {conf(system, run)["reason"] for run in made} == {"did it help?"}
