"""The watch: it waits through restarts and outages, does not loop on what cannot work, and misses no snapshot."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from tests.e2e.lab import Lab, pictures, take_a_snapshot
from tests.e2e.system import S3_AWAY, Run, System, await_

UNCHANGED = "unchanged since the last snapshot"


@pytest.fixture(scope="module", autouse=True)
def project(lab: Lab) -> None:
    """A project whose retrains only have to begin."""
    lab.configure(settle_seconds=8)


def watching(lab: Lab, words: str, seconds: float = 90) -> Run:
    """Waits until the project's watch says this; returns its run."""

    def says() -> Run | None:
        run = next((run for run in lab.system.runs(f"{lab.name}__watch") if run.state == "running"), None)
        progress = run and lab.system.xcom(run, "wait_for_change", "progress")
        return run if words in str(progress) else None

    return await_(f"the watch of {lab.name} to say {words!r}", says, seconds)


def snapshot_of(lab: Lab, run: Run) -> dict[str, Any]:
    """The record of a run's snapshot."""
    record: dict[str, Any] = json.loads(lab.system.read("airlock", f"snapshots/{lab.name}/{run.partition_key}.json"))
    return record


def test_a_kill_of_the_triggerer_while_an_upload_settles_loses_nothing_and_doubles_nothing(
    lab: Lab, system: System
) -> None:
    lab.put(pictures()[:200])
    watch = watching(lab, "unless it changes")
    system.kill("airflow-triggerer")
    run = system.give_up(lab.await_new_retrain([], seconds=180))
    assert snapshot_of(lab, run)["count"] == 200
    assert system.tasks(watch) == {"wait_for_change": "success", "snapshot": "success"}
    assert len(lab.retrains()) == 1


def test_an_outage_of_s3_is_waited_out_in_words(lab: Lab, system: System) -> None:
    known = lab.retrains()
    watch = watching(lab, UNCHANGED)
    with system.down("s3"):
        assert watching(lab, "cannot be listed").run_id == watch.run_id
        dates = {"from_date": "2026-01-01T00:00:00Z", "to_date": "2099-01-01T00:00:00Z"}
        refused = system.airflow("POST", "/backfills", {"dag_id": f"{lab.name}__retrain", **dates})
        assert (refused.status_code, S3_AWAY in refused.text) == (422, True), refused.text
    lab.put(pictures()[200:220])
    run = system.give_up(lab.await_new_retrain(known))
    assert snapshot_of(lab, run)["count"] == 220
    assert system.tasks(watch)["snapshot"] == "success"


def test_a_person_holds_an_upload_that_settles_and_then_starts_it_at_once(lab: Lab, system: System) -> None:
    known = lab.retrains()
    tell_the_watch(lab, "hold", "more to come")
    lab.put(pictures()[240:250])
    watching(lab, "held by admin at ")
    tell_the_watch(lab, "start now", None)
    run = system.give_up(lab.await_new_retrain(known))
    assert snapshot_of(lab, run)["count"] == 230
    assert orders(lab) == 0, "what was followed is gone"


def tell_the_watch(lab: Lab, order: str, reason: str | None) -> None:
    """Triggers `airlock__settle`, and waits for its end."""
    run = lab.system.await_end(lab.system.start("airlock__settle", project=lab.name, order=order, reason=reason), 90)
    assert run.state == "success", lab.system.tasks(run)


def orders(lab: Lab) -> int:
    """How many orders to the project's watch there are."""
    found = lab.system.s3.list_objects_v2(Bucket=lab.system.bucket("airlock"), Prefix=f"watch/{lab.name}.")
    return int(found["KeyCount"])


def test_a_bucket_that_no_snapshot_can_hold_is_tried_once_and_again_when_it_has_changed(
    lab: Lab, system: System
) -> None:
    known, before = lab.retrains(), system.runs(f"{lab.name}__watch")
    bucket = system.bucket(lab.bucket)
    for key in ("0/SAME.png", "0/same.png"):
        system.s3.put_object(Bucket=bucket, Key=key, Body=pictures()[0].png)
    watching(lab, "the last snapshot of this state failed")
    ended = [run for run in system.runs(f"{lab.name}__watch") if run not in before and run.state != "running"]
    assert [run.state for run in ended] == ["failed"] * len(ended)
    failed = next(run for run in ended if system.tasks(run)["snapshot"] == "failed")
    assert system.attempts(failed, "snapshot") == 1
    assert "0/same.png" in system.log(failed, "snapshot")
    system.s3.delete_object(Bucket=bucket, Key="0/SAME.png")
    system.give_up(lab.await_new_retrain(known))
    assert len(lab.retrains()) == len(known) + 1


def test_the_same_bytes_uploaded_again_start_no_run(lab: Lab, system: System) -> None:
    known = lab.retrains()
    key = f"{pictures()[0].label}/{lab.salt}-{pictures()[0].name}"
    where = {"Bucket": system.bucket(lab.bucket), "Key": key}
    upload = system.s3.create_multipart_upload(**where)["UploadId"]
    part = system.s3.upload_part(**where, UploadId=upload, PartNumber=1, Body=pictures()[0].png)
    parts = {"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]}
    system.s3.complete_multipart_upload(**where, UploadId=upload, MultipartUpload=parts)

    def seen() -> Run | None:
        """The watch run that found nothing new behind the other ETag."""
        ended = [run for run in system.runs(f"{lab.name}__watch") if run.state == "success"]
        return ended[0] if ended and "nothing new in" in system.log(ended[0], "snapshot") else None

    await_("the watch to look behind the other ETag", seen, 120)
    watching(lab, UNCHANGED)
    assert lab.retrains() == known


def test_a_snapshot_whose_task_died_before_its_event_gets_its_run_once(lab: Lab, system: System) -> None:
    known = lab.retrains()
    watch = watching(lab, UNCHANGED)
    system.airflow("PATCH", f"/dags/{lab.name}__watch", {"is_paused": True})
    lab.put(pictures()[220:240])
    taken = take_a_snapshot(lab)
    system.airflow("PATCH", f"/dags/{lab.name}__watch", {"is_paused": False})
    run = lab.await_new_retrain(known)
    assert run.partition_key == taken
    system.give_up(run)
    assert system.tasks(watch)["snapshot"] == "success"
    assert len(lab.retrains()) == len(known) + 1


def test_what_changes_while_airflow_is_down_is_trained_once_when_it_is_back(lab: Lab, system: System) -> None:
    known = lab.retrains()
    before = snapshot_of(lab, known[0])["count"]
    with system.down("airflow-scheduler"), system.down("airflow-triggerer"):
        lab.put(pictures()[250:260])
    run = system.give_up(lab.await_new_retrain(known))
    assert snapshot_of(lab, run)["count"] == before + 10
    watching(lab, UNCHANGED)
    assert len(lab.retrains()) == len(known) + 1


def test_a_form_follows_a_project_that_is_changed_twice(lab: Lab, system: System) -> None:
    def offers(epochs: int) -> bool:
        fields = system.get(f"/dags/{lab.name}__retrain/details")["params"]
        return f"the project's, {epochs}." in fields["epochs"]["description"]

    for epochs in (6, 7):
        lab.configure(epochs=epochs)
        await_(f"the form to offer {epochs} epochs", partial(offers, epochs), 60)
