"""The trigger of the watch: looks at a project's bucket until it has changed and settled."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import obstore
from airflow.providers.amazon.aws.utils.connection_wrapper import AwsConnectionWrapper
from airflow.sdk import BaseHook
from airflow.sdk.execution_time.xcom import XCom
from airflow.triggers.base import BaseTrigger, TriggerEvent
from bucket_reports import BucketReports
from obstore.exceptions import InvalidPathError
from obstore.store import S3Store
from settled_change import Pace, SettledChange, Step

from include.listing import list_bucket, open_bucket
from include.project import PROJECTS_FOLDER, Project, ProjectError, load
from include.settings import get_settings
from include.watch_orders import Order, Wanted, key

_BEFORE_THE_FIRST_READ = Pace(settle_seconds=60, poll_seconds=5)
_CODE = re.compile(r"<Code>([^<]*)</Code>")
_LONGEST_CAUSE = 200
_SETTINGS_LEFT_ASIDE = "the changed settings are left aside, the last good ones hold"


class SettledChangeTrigger(BaseTrigger):
    """Fires with the listing of a project's bucket once it differs from the baseline and has been quiet.

    Whatever goes wrong is waited out in `run`: an error that leaves it would fail the task, and an outage
    would start a worker for every project at the same time. The project's settings are read here, at every
    look, because arguments of a deferred trigger stay as they were when the wait began.
    """

    def __init__(self, *, project: str, conn_id: str, baseline: str | None, failed: str | None) -> None:
        """`baseline` and `failed` are listing digests: see `SettledChange`."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.project = project
        self.conn_id = conn_id
        self.baseline = baseline
        self.failed = failed
        self._project = _ProjectFile(project)
        self._stores: dict[str, S3Store] = {}
        self._written = ""
        self._reports = BucketReports(project)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What Airflow stores to make the trigger again in another process."""
        arguments = {
            "project": self.project,
            "conn_id": self.conn_id,
            "baseline": self.baseline,
            "failed": self.failed,
        }
        return ("settled_change_trigger.SettledChangeTrigger", arguments)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event, `{"listing_digest", "count"}`, when there is something to take a snapshot of."""
        watch = SettledChange(baseline=self.baseline, failed=self.failed)
        while True:
            step = await self._look(watch)
            await self._say(step)
            if step.fire is not None:
                event = {"listing_digest": step.fire.digest, "count": step.fire.count}
                yield TriggerEvent(event)  # type: ignore[no-untyped-call]
                return
            await asyncio.sleep(step.pause_seconds)

    async def _look(self, watch: SettledChange) -> Step:
        began = time.monotonic()
        try:
            if changed := self._project.refresh():
                self.log.info(changed)
            listing = await list_bucket(await self._bucket(get_settings().bucket(self._project.current.bucket)))
            ended = time.monotonic()
            order = await self._order() if watch.differs(listing) else None
            step = watch.look(
                listing, began=began, ended=ended, clock=datetime.now(UTC), pace=self._project.pace, order=order
            )
            if step.fire is not None and order is not None and order.wanted == Wanted.NOW:
                await self._order_is_done()
        except Exception as error:
            self._stores.clear()
            words = self._in_words(error)
            self._reports.failed(words, began)
            return watch.failed_look(words, pace=self._project.pace)
        self._reports.succeeded()
        return step

    async def _order(self) -> Order | None:
        """What a person has told this watch. Asked for only while there is something to start or to hold."""
        records = await self._bucket(get_settings().records_bucket)
        try:
            found = await obstore.get_async(records, key(self.project))
        except FileNotFoundError:
            return None
        return Order.model_validate_json(bytes(await found.bytes_async()))

    async def _order_is_done(self) -> None:
        """A "start now" is for one snapshot."""
        await obstore.delete_async(await self._bucket(get_settings().records_bucket), key(self.project))

    async def _bucket(self, name: str) -> S3Store:
        """A bucket. The connection is read again after an error, so that a corrected key or address counts."""
        if name not in self._stores:
            self._stores[name] = await self._open(name)
        return self._stores[name]

    async def _open(self, bucket: str) -> S3Store:
        access = AwsConnectionWrapper(await BaseHook.aget_connection(self.conn_id))
        return open_bucket(
            bucket,
            endpoint_url=access.endpoint_url,
            region=access.region_name or "us-east-1",
            key_id=access.aws_access_key_id or "",
            secret=access.aws_secret_access_key or "",
        )

    async def _say(self, step: Step) -> None:
        """Tell a person: the task's log has each new state of the wait, the XCom `progress` the newest words."""
        if step.news:
            self.log.info(step.progress)
        instance = self.task_instance
        if instance is None or step.progress == self._written:
            return
        try:
            await XCom.aset(
                key="progress",
                value=step.progress,
                dag_id=instance.dag_id,
                task_id=instance.task_id,
                run_id=instance.run_id,
                map_index=instance.map_index,
            )
            self._written = step.progress
        except Exception as error:
            # Only words for a person: the wait goes on without them.
            self.log.warning("the XCom progress could not be written: %s", str(error)[:_LONGEST_CAUSE])

    def _in_words(self, error: Exception) -> str:
        """An error of a look as one line: what, why, what to do."""
        text = " ".join(str(error).split())
        bucket = self._project.bucket_in_words
        if isinstance(error, ProjectError):
            return f"the settings of project {self.project} cannot be read: {text[:_LONGEST_CAUSE]}"
        if isinstance(error, InvalidPathError):
            return (
                f"{bucket} holds an object whose name no checkout can hold, rename or delete it: "
                f"{text[:_LONGEST_CAUSE]}"
            )
        code = found[1] if (found := _CODE.search(text)) else ""
        if code == "NoSuchBucket":
            return f"{bucket} does not exist: create it (`make up` does), or correct `bucket` in the project's file"
        if code in {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"}:
            return f"S3 refuses to list {bucket} ({code}): check the keys of the connection {self.conn_id}"
        if isinstance(error, TimeoutError):
            return f"{bucket} cannot be listed: S3 does not answer"
        return f"{bucket} cannot be listed: {code or text[:_LONGEST_CAUSE] or type(error).__name__}"


class _ProjectFile:
    """A project's settings, read again when the file changes; the last good ones stay where it is broken."""

    def __init__(self, name: str) -> None:
        self._path = PROJECTS_FOLDER / f"{name}.yaml"
        self._read_at = 0
        self._mistake = ""
        self._project: Project | None = None

    @property
    def current(self) -> Project:
        """The settings. Raises ProjectError where none could be read yet."""
        if self._project is None:
            self._project = load(self._path)
        return self._project

    @property
    def pace(self) -> Pace:
        if self._project is None:
            return _BEFORE_THE_FIRST_READ
        return Pace(self._project.settle_seconds, self._project.poll_seconds)

    @property
    def bucket_in_words(self) -> str:
        return f"the bucket {self._project.bucket}" if self._project else "the bucket"

    def refresh(self) -> str | None:
        """Read the file where it has changed; returns what is worth a log line."""
        try:
            changed_at = self._path.stat().st_mtime_ns
            if changed_at == self._read_at:
                return None
            first = self._read_at == 0
            self._read_at = changed_at
            self._project = load(self._path)
        except (OSError, ProjectError) as error:
            if self._project is None:
                raise
            known, self._mistake = self._mistake, str(error)
            # A file that is gone is found gone at every look.
            return None if known == self._mistake else f"{_SETTINGS_LEFT_ASIDE}: {error}"
        self._mistake = ""
        return None if first else "the project's settings have changed and are read again"
