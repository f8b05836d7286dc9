"""The watch's trigger: whatever happens to S3, it waits, and says so."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import settled_change_trigger
from airflow.sdk import BaseHook
from airflow.sdk.execution_time.xcom import XCom
from obstore.exceptions import GenericError
from settled_change_trigger import SettledChangeTrigger

from include.listing import Listing

YAML = "device: cpu\nsettle_seconds: {settle}\npoll_seconds: 1\n"


class Scene:
    """S3's answers, one for each look, and a clock that sleeping moves."""

    def __init__(self) -> None:
        self.answers: list[Listing | Exception | Callable[[], Listing]] = []
        self.now = 0.0
        self.progress: list[str] = []
        self.opened = 0

    async def list_bucket(self, _: object) -> Listing:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer() if callable(answer) else answer

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    def open_bucket(self, *_: object, **__: object) -> None:
        self.opened += 1

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
    monkeypatch.setattr(settled_change_trigger, "AwsConnectionWrapper", lambda _: access)
    monkeypatch.setattr(BaseHook, "aget_connection", connection)
    monkeypatch.setattr(settled_change_trigger, "get_settings", lambda: SimpleNamespace(bucket=lambda name: name))
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

    return asyncio.run(asyncio.wait_for(first(), 30))


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
