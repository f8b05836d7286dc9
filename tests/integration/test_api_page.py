"""The API's page in a real browser: what a person sees who drops a picture on it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn
from api.app import Serving, State
from api.application import application
from api.identity import Identity
from api.inference import Inference
from api.memory import Memory
from api.model import Model
from playwright.sync_api import Page, expect
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.classifiers import colour_classifier, picture
from tests.e2e.browser import browser_page
from tests.integration.docker_engine import wait_until
from tests.integration.ports import free_ports

KEY = "a key"


@dataclass
class Guarded:
    """As the front door does it: without the key, nothing but the page."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/" or (b"x-api-key", KEY.encode()) in scope["headers"]:
            return await self.app(scope, receive, send)
        body = json.dumps({"title": "Unauthorized", "status": 401, "detail": "this project asks for an API key"})
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": body.encode()})


@contextmanager
def listening(app: ASGIApp) -> Iterator[str]:
    (port,) = free_ports(1)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> ASGIApp:
    """An API that serves the classifier of colours."""
    path = tmp_path_factory.mktemp("model") / "best.onnx"
    path.write_bytes(colour_classifier().SerializeToString())
    model = Model(path, threads=1)
    hashes = {"dvc_hash": "b" * 32, "dvc_hash_onnx": "c" * 32, "snapshot_md5": f"{'d' * 32}.dir"}
    identity = Identity(
        run_id="a" * 32,
        project="paint",
        snapshot_id="20261123T171409123Z-c71581aa",
        git_commit="abc",
        image_id="sha256:trainer",
        accuracy=0.97,
        **hashes,
    )
    state = State("paint", "20261123T171409123Z-v3", "sha256:api")
    state.serving = Serving(
        identity,
        Inference(model, 1, Memory(1 << 30), 64 << 20, state.metrics.batch_size.observe),
        list(model.classes),
        model.image_size,
        "2026-11-23T17:20:00.000Z",
        "http://127.0.0.1:5000/#/experiments/1/runs/a",
    )
    return application(state)


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    """A page whose console stays empty."""
    with browser_page(900, 900) as page:
        yield page


@pytest.fixture
def page(browser: Page, api: ASGIApp) -> Iterator[Page]:
    """The API's page, just opened."""
    with listening(api) as url:
        browser.goto(url)
        yield browser


def until_painted(page: Page) -> None:
    """Chromium drops the keys that arrive before a page's first frame."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def picture_file(folder: Path, colour: str) -> Path:
    """A picture on the disk."""
    path = folder / f"{colour}.png"
    path.write_bytes(picture(colour))
    return path


def test_the_page_says_what_serves_and_links_to_the_run(page: Page) -> None:
    expect(page.get_by_role("heading", name="paint")).to_be_visible()
    expect(page.get_by_text("97.0 % accurate")).to_be_visible()
    link = page.get_by_role("link", name="a" * 32)
    assert link.get_attribute("href") == "http://127.0.0.1:5000/#/experiments/1/runs/a"


def test_a_chosen_picture_gets_its_class_and_bars(page: Page, tmp_path: Path) -> None:
    page.get_by_label("Choose a picture").set_input_files(picture_file(tmp_path, "red"))
    expect(page.get_by_role("heading", name="red, ")).to_be_visible()
    assert page.locator("#best .bar b").first.text_content() == "red"
    page.get_by_label("Choose a picture").set_input_files(picture_file(tmp_path, "blue"))
    expect(page.get_by_role("heading", name="blue, ")).to_be_visible()


def test_a_picture_is_chosen_with_the_keyboard_alone(page: Page, tmp_path: Path) -> None:
    # Listened for before anything else: a key that overtakes the listener opens the system's own chooser.
    page.on("filechooser", lambda chooser: chooser.set_files(picture_file(tmp_path, "green")))
    until_painted(page)
    page.keyboard.press("Tab")
    expect(page.get_by_label("Choose a picture")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="green, ")).to_be_visible()


def test_what_is_no_picture_is_told_in_words(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no picture")
    page.get_by_label("Choose a picture").set_input_files(path)
    expect(page.get_by_role("alert")).to_contain_text("The body cannot be used")


def test_nothing_comes_from_elsewhere_and_the_policy_holds(browser: Page, api: ASGIApp, tmp_path: Path) -> None:
    asked: list[str] = []
    said: list[str] = []
    browser.on("request", lambda request: asked.append(request.url))
    browser.on("console", lambda message: said.append(message.text))
    with listening(api) as url:
        browser.goto(url)
        browser.get_by_label("Choose a picture").set_input_files(picture_file(tmp_path, "red"))
        expect(browser.get_by_role("heading", name="red, ")).to_be_visible()
    assert {request for request in asked if not request.startswith((url, "blob:", "data:"))} == set()
    assert said == []


def test_where_a_key_is_asked_for_it_is_asked_of_the_person(browser: Page, api: ASGIApp, tmp_path: Path) -> None:
    with listening(Guarded(api)) as url:
        browser.goto(url)
        browser.get_by_label("This project asks for an API key.").fill(KEY)
        browser.get_by_role("button", name="Use it").click()
        expect(browser.get_by_role("heading", name="paint")).to_be_visible()
        browser.get_by_label("Choose a picture").set_input_files(picture_file(tmp_path, "red"))
        expect(browser.get_by_role("heading", name="red, ")).to_be_visible()


def test_it_fits_a_phone(browser: Page, api: ASGIApp, tmp_path: Path) -> None:
    browser.set_viewport_size({"width": 360, "height": 640})
    with listening(api) as url:
        browser.goto(url)
        browser.get_by_label("Choose a picture").set_input_files(picture_file(tmp_path, "red"))
        expect(browser.get_by_role("heading", name="red, ")).to_be_visible()
        assert browser.evaluate("document.documentElement.scrollWidth") <= 360
