"""The watch's trigger: whatever happens to S3, it waits, and says so."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import obstore
import pytest
import settled_change_trigger
from airflow.sdk import BaseHook
from airflow.sdk.execution_time.xcom import XCom
from obstore.exceptions import GenericError
from obstore.store import MemoryStore
from settled_change_trigger import SettledChangeTrigger

from include.listing import Listing
from include.watch_orders import LAPSES, Order, Wanted, key

YAML = "device: cpu\nsettle_seconds: {settle}\npoll_seconds: 1\n"


class Scene:
    """S3's answers, one for each look, and a clock that sleeping moves."""

    def __init__(self) -> None:
        self.answers: list[Listing | Exception | Callable[[], Listing]] = []
        self.now = 0.0
        self.progress: list[str] = []
        self.opened = 0
        self.records = MemoryStore()

    async def list_bucket(self, _: object) -> Listing:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer() if callable(answer) else answer

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    def open_bucket(self, bucket: str, **_: object) -> MemoryStore:
        self.opened += bucket == "digits-train"
        return self.records

    def order(self, wanted: Wanted, age: timedelta = timedelta(0)) -> None:
        order = Order(wanted=wanted, by="ann", at=datetime.now(UTC) - age, reason="all are there")
        obstore.put(self.records, key("digits"), order.model_dump_json().encode())

    async def write_xcom(self, **kwargs: Any) -> None:
        assert kwargs["key"] == "progress"
        self.progress.append(kwargs["value"])


@pytest.fixture
def project_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(settled_change_trigger, "PROJECTS_FOLDER", tmp_path)
    path = tmp_path / "digits.yaml"
    path.write_text(YAML.format(settle=5))
    return path


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch, project_file: Path) -> Scene:
    scene = Scene()

    async def connection(_: str) -> SimpleNamespace:
        return SimpleNamespace()

    access = SimpleNamespace(endpoint_url="http://s3", region_name=None, aws_access_key_id="", aws_secret_access_key="")
    settings = SimpleNamespace(bucket=lambda name: name, records_bucket="airlock")
    monkeypatch.setattr(settled_change_trigger, "AwsConnectionWrapper", lambda _: access)
    monkeypatch.setattr(BaseHook, "aget_connection", connection)
    monkeypatch.setattr(settled_change_trigger, "get_settings", lambda: settings)
    monkeypatch.setattr(settled_change_trigger, "open_bucket", scene.open_bucket)
    monkeypatch.setattr(settled_change_trigger, "list_bucket", scene.list_bucket)
    monkeypatch.setattr(time, "monotonic", lambda: scene.now)
    monkeypatch.setattr(asyncio, "sleep", scene.sleep)
    monkeypatch.setattr(XCom, "aset", scene.write_xcom)
    return scene


def fired(baseline: str | None = None) -> dict[str, Any]:
    """Run the trigger as the triggerer does; what it fires."""
    kwargs = SettledChangeTrigger(project="digits", conn_id="airlock_s3", baseline=baseline, failed=None).serialize()[1]
    trigger = SettledChangeTrigger(**kwargs)
    trigger.task_instance = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1)  # type: ignore[assignment]

    async def first() -> dict[str, Any]:
        payload: dict[str, Any] = (await anext(aiter(trigger.run()))).payload
        return payload

    return asyncio.run(first())


def test_it_fires_with_the_listing_that_settled(scene: Scene) -> None:
    scene.answers = [Listing("old", 1), Listing("old", 1), Listing("new", 2)]
    assert fired(baseline="old") == {"listing_digest": "new", "count": 2}
    assert scene.now == 2 + 5


def test_an_outage_is_waited_out_and_the_connection_read_anew(scene: Scene) -> None:
    scene.answers = [*[GenericError("connection refused")] * 20, Listing("new", 2)]
    assert fired()["listing_digest"] == "new"
    assert scene.opened == 21
    assert "cannot be listed: connection refused" in scene.progress[0]


def test_a_missing_bucket_is_waited_for_with_words_that_say_what_to_do(scene: Scene) -> None:
    scene.answers = [GenericError("404 <Error><Code>NoSuchBucket</Code></Error>"), Listing("new", 2)]
    fired()
    assert "the bucket digits-train does not exist: create it" in scene.progress[0]


def test_refused_keys_are_said_and_no_part_of_the_answer_is_repeated(scene: Scene) -> None:
    answer = "403 <Code>SignatureDoesNotMatch</Code><StringToSign>canary</StringToSign>"
    scene.answers = [GenericError(answer), Listing("new", 2)]
    fired()
    assert "S3 refuses to list the bucket digits-train (SignatureDoesNotMatch)" in scene.progress[0]
    assert not any("canary" in line for line in scene.progress)


def test_a_changed_settle_time_counts_for_the_wait_that_goes_on(scene: Scene, project_file: Path) -> None:
    def shorten() -> Listing:
        before = project_file.stat().st_mtime_ns
        project_file.write_text(YAML.format(settle=2))
        os.utime(project_file, ns=(before + 10**9, before + 10**9))  # some file systems' clocks are coarse
        return Listing("new", 2)

    project_file.write_text(YAML.format(settle=1000))
    scene.answers = [Listing("new", 2), shorten, Listing("new", 2)]
    fired()
    assert scene.now < 10


def test_a_project_file_broken_meanwhile_leaves_the_last_good_settings(scene: Scene, project_file: Path) -> None:
    def break_it() -> Listing:
        project_file.write_text("settle_seconds: soon\n")
        return Listing("new", 2)

    scene.answers = [break_it, Listing("new", 2)]
    assert fired()["listing_digest"] == "new"
    assert scene.now == 5


def test_it_waits_on_though_its_words_cannot_be_written(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(**_: Any) -> None:
        raise RuntimeError("API server away")

    monkeypatch.setattr(XCom, "aset", refuse)
    scene.answers = [Listing("new", 2)]
    assert fired()["listing_digest"] == "new"


def test_a_person_may_start_a_snapshot_before_the_bucket_has_settled_once(scene: Scene, project_file: Path) -> None:
    project_file.write_text(YAML.format(settle=1000))
    scene.order(Wanted.NOW)
    scene.answers = [Listing("old", 1), Listing("new", 2)]
    assert fired(baseline="old")["listing_digest"] == "new"
    assert scene.now == 1, "at the first look that saw a change"
    assert "takes a snapshot, asked for by ann at " in scene.progress[-1]
    assert "(all are there)" in scene.progress[-1]
    scene.now, scene.answers = 0, [Listing("newer", 3)]
    fired()
    assert scene.now == 1000, "the next change settles again"


def test_a_word_of_long_ago_hurries_nothing(scene: Scene) -> None:
    scene.order(Wanted.NOW, age=LAPSES + timedelta(minutes=1))
    scene.answers = [Listing("new", 2)]
    fired()
    assert scene.now == 5


def test_a_person_may_hold_a_snapshot_until_it_may_go_on(scene: Scene) -> None:
    def let_go() -> Listing:
        obstore.delete(scene.records, key("digits"))
        return Listing("new", 2)

    scene.order(Wanted.HOLD)
    scene.answers = [*[Listing("new", 2)] * 100, let_go, Listing("new", 2)]
    fired()
    assert scene.now == 100, "what has been quiet while it was held need not settle anew"
    assert scene.progress[0].startswith("2 files, held by ann at ")
