"""Housekeeping: what tasks have left goes, old weights go when asked, and what anything points at never does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from include import housekeeping
from include.containers import TaskInstance
from include.deployment import deploy, promote, verify
from include.housekeeping import Spared, Weight
from tests.simulation.reality import PROJECT, Reality, run_id, wish

NOW = datetime(2026, 11, 29, 2, 0, tzinfo=UTC)
OLD, BEFORE = NOW - timedelta(days=100), NOW - timedelta(days=90)
TASK = {"airflow_dag_id": "digits__retrain", "airflow_run_id": "manual__1", "airflow_task_id": "train"}


def run(name: str, at: datetime = OLD, status: str = "FINISHED", **tags: str) -> Any:
    moment = round(at.timestamp() * 1000)
    info = SimpleNamespace(run_id=name, start_time=moment, end_time=moment, status=status)
    return SimpleNamespace(info=info, data=SimpleNamespace(tags=tags))


class Mlflow:
    """What is asked of MLflow's client; `aliases` are run ids by alias of the model `digits`."""

    def __init__(self, *runs: Any, **aliases: str) -> None:
        self.runs = {one.info.run_id: one for one in runs}
        self.aliases = aliases
        self.did: list[tuple[str, ...]] = []

    def search_experiments(self, view_type: int) -> list[Any]:
        return [SimpleNamespace(experiment_id="1")]

    def search_runs(self, ids: list[str], wanted: str, view: int, size: int, page_token: str | None) -> Any:
        running = [one for one in self.runs.values() if one.info.status == "RUNNING"]
        others = [one for one in self.runs.values() if one.info.status != "RUNNING"]
        found = {"": [*running, *others], "attributes.status = 'RUNNING'": running}.get(wanted, others)

        class Page(list[Any]):
            token = None if page_token else "more"

        return Page([] if page_token else found)

    def search_registered_models(self) -> list[Any]:
        return [SimpleNamespace(name="digits", aliases={alias: alias for alias in self.aliases})]

    def get_model_version(self, name: str, version: str) -> Any:
        return SimpleNamespace(run_id=self.aliases[version])

    def set_tag(self, run: str, key: str, value: str) -> None:
        self.did.append(("tag", run, key))

    def set_terminated(self, run: str, status: str) -> None:
        self.did.append(("end", run, status))


def weight(md5: str, at: datetime = OLD) -> Weight:
    return Weight(f"models/files/md5/{md5[:2]}/{md5[2:]}", 7, at)


def md5s(found: list[Weight]) -> list[str]:
    return [one.md5 for one in found]


def test_weights_that_only_old_runs_have_locked_are_removable_and_all_others_stay() -> None:
    mlflow: Any = Mlflow(
        run("old", dvc_hash="aa1", dvc_hash_split="shared"),
        run("young", NOW, dvc_hash="bb1", dvc_hash_split="shared"),
        run("challenger", dvc_hash="cc1"),
        run("goes on", OLD, "RUNNING", dvc_hash="dd1"),
        run("pointed at", dvc_hash="ee1"),
    )
    pointed_at = Spared(frozenset({"challenger", "pointed at"}), frozenset({"ff1"}))
    old = housekeeping.old_runs(mlflow, pointed_at, BEFORE)
    assert [one.info.run_id for one in old] == ["old"]
    objects = [weight(md5) for md5 in ("aa1", "bb1", "cc1", "dd1", "ee1", "ff1", "shared", "gg1")]
    found = housekeeping.removable([*objects, weight("hh1", NOW)], mlflow, pointed_at, old, BEFORE)
    assert md5s(found) == ["aa1", "gg1"]


def test_what_serves_may_be_put_back_or_has_an_alias_is_pointed_at() -> None:
    reality = Reality()
    for version in (1, 2):
        release = deploy(reality.world(), PROJECT, wish(version, version - 1 or None)).release_id
        verify(reality.world(), PROJECT, release)
        promote(reality.world(), PROJECT, release)
    tried = deploy(reality.world(), PROJECT, wish(3, 2))
    assert tried.previous_release_id
    mlflow: Any = Mlflow(champion=run_id(2), challenger="another", other="neither")
    releases = reality.world().releases
    assert releases.projects() == [PROJECT.name], "by its records, whatever files there are"
    found = housekeeping.spared(mlflow, releases, releases.projects())
    assert found.runs == {run_id(1), run_id(2), run_id(3), "another"}
    assert {wish(version, None).train.dvc_hash for version in (1, 2, 3)} <= found.md5s


def test_runs_are_marked_before_their_weights_go() -> None:
    mlflow: Any = Mlflow()
    store = SimpleNamespace(delete_object=lambda Bucket, Key: mlflow.did.append(("delete", Bucket, Key)))
    old = run("old", dvc_hash="aa1")
    housekeeping.remove_weights(store, "dvc", mlflow, [weight("aa1")], [old])
    assert mlflow.did == [("tag", "old", "weights_removed"), ("delete", "dvc", "models/files/md5/aa/1")]
    marked: Any = Mlflow(run("old", dvc_hash="aa1", weights_removed="2026-11-29"))
    assert housekeeping.old_runs(marked, Spared(frozenset(), frozenset()), BEFORE) == []


@pytest.mark.parametrize(("at", "goes_on", "closed"), [(OLD, False, True), (OLD, True, False), (NOW, False, False)])
def test_a_run_is_closed_when_its_task_has_ended_and_it_is_not_young(at: datetime, goes_on: bool, closed: bool) -> None:
    mlflow: Any = Mlflow(run("left", at, "RUNNING", **TASK), run("a person's", OLD, "RUNNING"))
    asked: list[TaskInstance] = []

    def answer(instance: TaskInstance) -> bool:
        asked.append(instance)
        return goes_on

    found = housekeeping.abandoned_runs(mlflow, answer, NOW)
    assert [one.info.run_id for one in found] == (["left"] if closed else [])
    assert asked in ([], [TaskInstance("digits__retrain", "manual__1", "train")])
    housekeeping.close_runs(mlflow, found)
    assert mlflow.did == ([("end", "left", "KILLED")] if closed else [])


def test_a_container_that_no_task_follows_is_found_and_the_others_are_not() -> None:
    def row(name: str, at: datetime, task: str) -> dict[str, Any]:
        labels = TaskInstance("digits__retrain", "manual__1", task).labels()
        return {"Id": name, "Names": [f"/{name}"], "Created": at.timestamp(), "Labels": labels}

    rows = [row("left", OLD, "train"), row("young", NOW, "train"), row("follows", OLD, "evaluate")]
    asked: list[Any] = []
    client: Any = SimpleNamespace(containers=lambda all, filters: asked.append(filters) or rows)  # type: ignore[func-returns-value]
    found = housekeeping.orphans(client, lambda instance: instance.task_id == "evaluate", NOW)
    assert [orphan.name for orphan in found] == ["left"]
    assert asked == [{"label": ["airlock.managed=true", "airlock.role=task"]}]
