"""The Airlock page in a browser: what it shows, and what its buttons ask Airflow for."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import airlock_page
import cv2
import httpx
import numpy as np
import pytest
import uvicorn
from airflow.api_fastapi.core_api.security import get_user
from airlock_page import Card
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from playwright.sync_api import Page, expect

from include.deployment import deploy, promote, verify
from include.overview import Overview, overview
from include.project import Project, Projects
from include.s3 import Stored
from tests.e2e.browser import browser_page
from tests.integration.ports import free_ports
from tests.simulation.reality import PROJECT, Reality, wish

SNAPSHOTS = [f"202609{day:02d}T101500000Z-{day:08x}" for day in range(1, 4)]
SHEET = cv2.imencode(".jpg", np.zeros((64, 512, 3), np.uint8))[1].tobytes()
HOSTILE = "<img src=x onerror=alert(1)>"


class Records:
    """A record for every snapshot that is asked for."""

    def read(self, key: str) -> Stored | None:
        if key.endswith(".jpg"):
            return Stored(SHEET, "e") if SNAPSHOTS[0] in key else None
        snapshot = key.rpartition("/")[2].removesuffix(".json")
        body = {
            "id": snapshot,
            "created_at": "2026-09-01T10:15:00Z",
            "count": 1797,
            "bytes": 812345,
            "classes": {"0": {}},
        }
        diff = None if snapshot == SNAPSHOTS[0] else {"added": 30, "removed": 2, "changed": 1}
        return Stored(json.dumps(body | {"diff": diff}).encode(), "e")


def known() -> Overview:
    """A project with two releases and three snapshots."""
    reality = Reality()
    for version in (1, 2):
        wanted = wish(version, version - 1 or None).model_copy(update={"reason": f"deploy: {HOSTILE}"})
        release = deploy(reality.world(), PROJECT, wanted).release_id
        verify(reality.world(), PROJECT, release)
        promote(reality.world(), PROJECT, release)
        reality.now += timedelta(days=1)
    return overview(PROJECT.name, reality.world().releases, Records(), SNAPSHOTS)  # type: ignore[arg-type]


@dataclass
class Served:
    """The page on loopback, and what its buttons have asked for."""

    url: str
    asked: list[tuple[str, Any]] = field(default_factory=list)
    refusal: str | None = None


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """The page within an Airflow that takes every run, or refuses it."""
    cats, digits = (Project(name=name, bucket=f"{name}-train") for name in ("cats", "digits"))
    trouble = "reading s3://airlock/releases/cats/state.json failed: is the S3 server up?"
    cards = {
        "cats": Card("cats", cats, trouble=trouble),
        "digits": Card(
            "digits",
            digits,
            known=known(),
            outcome=f"kept champion: {HOSTILE}",
            run_id="manual__1+00:00",
            watching=f"1,797 files, last change 4 s ago, {HOSTILE}",
        ),
    }
    monkeypatch.setattr(airlock_page, "card", lambda project: cards[project.name])
    monkeypatch.setattr(airlock_page, "load_all", lambda _: Projects({"cats": cats, "digits": digits}, {}))
    monkeypatch.setattr(airlock_page, "records", lambda _: Records())
    monkeypatch.setattr(airlock_page, "get_settings", lambda: None)
    monkeypatch.setitem(airlock_page.app.dependency_overrides, get_user, lambda: "ann")
    (port,) = free_ports(1)
    served = Served(f"http://127.0.0.1:{port}")
    airflow = FastAPI()
    airflow.mount("/airlock", airlock_page.app)

    @airflow.post("/api/v2/dags/{dag_id}/dagRuns")
    async def trigger(dag_id: str, request: Request) -> Any:
        served.asked.append((dag_id, await request.json()))
        if served.refusal is not None:
            from fastapi.responses import JSONResponse

            return JSONResponse({"detail": served.refusal}, 400)
        return {"dag_run_id": "manual__2026-11-29T02:00:00+00:00"}

    server = uvicorn.Server(uvicorn.Config(airflow, port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.05)
    yield served
    server.should_exit = True
    thread.join()


@pytest.fixture
def page(served: Served) -> Iterator[Page]:
    """The page, opened."""
    with browser_page() as page:
        page.goto(f"{served.url}/airlock/")
        yield page


def test_nobody_sees_it_who_is_not_logged_in() -> None:
    client = TestClient(airlock_page.app, base_url="http://airflow.example", follow_redirects=False)
    for path in ("/", "/page.js", f"/sheets/digits/{SNAPSHOTS[0]}"):
        answer = client.get(path)
        assert (answer.status_code, answer.content) == (303, b"")
        assert answer.headers["Location"] == "/auth/login?next=http%3A//airflow.example/"


def test_it_shows_each_project_and_trouble_with_one_hides_no_other(page: Page) -> None:
    digits = page.get_by_role("region", name="digits")
    expect(digits.get_by_text("97.0 %", exact=True)).to_be_visible()
    expect(digits.get_by_text("version 2 since ")).to_be_visible()
    expect(digits.get_by_role("img", name="Accuracy of 2 releases, from 97.0% to 97.0%")).to_be_visible()
    expect(digits.get_by_role("row")).to_have_count(1 + len(SNAPSHOTS))
    expect(digits.get_by_role("row").nth(1)).to_contain_text("+30 \u22122 1 changed")
    expect(page.get_by_role("region", name="cats")).to_contain_text("is the S3 server up?")
    expect(page.locator("img[src=x]")).to_have_count(0)
    link = digits.get_by_role("link", name="kept champion").get_attribute("href")
    assert link == "/dags/digits__retrain/runs/manual__1%2B00%3A00"


def test_a_press_puts_a_release_back(page: Page, served: Served) -> None:
    digits = page.get_by_role("region", name="digits")
    first = digits.get_by_label("Back to").locator("option").last.inner_text()
    digits.get_by_label("Back to").select_option(first)
    digits.locator("[data-dag=airlock__rollback]").get_by_label("why").fill("it is worse at night")
    digits.get_by_role("button", name="Roll back").click()
    assert served.asked == [], "it asks back first"
    digits.get_by_role("button", name="Put an earlier release of digits back?").click()
    expect(digits.get_by_role("link", name="begun: see the run")).to_have_attribute(
        "href", "/dags/airlock__rollback/runs/manual__2026-11-29T02%3A00%3A00%2B00%3A00"
    )
    conf = {"project": "digits", "release": first, "reason": "it is worse at night"}
    assert served.asked == [("airlock__rollback", {"logical_date": None, "conf": conf})]


def test_a_press_trains_on_a_snapshot_and_a_refusal_is_shown_in_airflows_words(page: Page, served: Served) -> None:
    served.refusal = "project digits has no snapshot"
    page.get_by_role("row").filter(has_text=SNAPSHOTS[0]).get_by_role("button", name="Train…").click()
    form = page.locator("#train-digits form")
    expect(form.get_by_label("snapshot")).to_have_value(SNAPSHOTS[0])
    expect(form.get_by_label("epochs")).to_have_attribute("placeholder", "10")
    form.get_by_label("epochs").fill("3")
    form.get_by_label("released, if better").select_option("no")
    form.get_by_label("why").fill("false")
    form.get_by_role("button", name="Train").click()
    form.get_by_role("button", name="Train digits?").click()
    expect(form.locator("output")).to_have_text("project digits has no snapshot")
    conf = {"epochs": 3, "learning_rate": None, "image_size": None, "deploy": "no", "reason": "false"}
    assert served.asked == [("digits__retrain", {"logical_date": None, "partition_key": SNAPSHOTS[0], "conf": conf})]


def test_the_bucket_tells_what_its_watch_waits_for_and_a_press_holds_it(page: Page, served: Served) -> None:
    digits = page.get_by_role("region", name="digits")
    expect(digits.get_by_text("1,797 files, last change 4 s ago")).to_be_visible()
    digits.get_by_label("Next snapshot").select_option("hold")
    digits.get_by_role("button", name="Tell the watch").click()
    digits.get_by_role("button", name="Tell the watch of digits?").click()
    expect(digits.get_by_role("link", name="begun: see the run")).to_be_visible()
    conf = {"project": "digits", "order": "hold", "reason": None}
    assert served.asked == [("airlock__settle", {"logical_date": None, "conf": conf})]


def test_a_snapshot_that_was_trained_on_has_a_contact_sheet(page: Page, served: Served) -> None:
    sheets = page.get_by_role("region", name="digits").get_by_role("img", name="pictures of")
    expect(sheets).to_have_count(1)
    assert sheets.evaluate("image => image.decode().then(() => image.naturalWidth)") == 512
    for path in (f"cats%2F..%2Fdigits/{SNAPSHOTS[0]}", "digits/state", f"dogs/{SNAPSHOTS[0]}"):
        assert httpx.get(f"{served.url}/airlock/sheets/{path}", timeout=60).status_code == 404


def test_it_asks_for_nothing_by_itself_and_for_nothing_from_elsewhere(served: Served) -> None:
    with browser_page(width=400) as page:
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.goto(f"{served.url}/airlock/")
        page.emulate_media(color_scheme="dark")
        page.wait_for_load_state("networkidle")
        own = [url.removeprefix(f"{served.url}/airlock/") for url in requests if "favicon" not in url]
        assert sorted(own) == sorted(["", "page.js", *(f"sheets/digits/{snapshot}" for snapshot in SNAPSHOTS)])
        wide = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        assert not wide, "a phone needs no scrolling sideways"
