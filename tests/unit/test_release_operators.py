"""The gate's branch, and the comparison that a deploy makes again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import deploy_operator
import evaluate_operator
import pytest
import requests
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from container_operator import ContainerOperator
from deploy_operator import DeployOperator
from docker.errors import APIError
from evaluate_operator import EvaluateOperator
from gate_operator import GateOperator

import include.real_world
from include import containers
from include.api_containers import ContainerError
from include.candidates import DeployError
from include.deployment import ChampionChanged, Deployed, Wish
from include.gate import GateThresholds
from include.project import Project
from include.settings import SettingsError

MD5 = "0123456789abcdef" * 2
TRAINED = {
    **dict.fromkeys(["run_id", "dvc_hash", "dvc_hash_onnx", "dvc_hash_golden", "dvc_hash_split"], MD5),
    "snapshot_id": "20261123T171409123Z-c71581aa",
    "snapshot_md5": f"{MD5}.dir",
    "metrics": {},
    "classes": ["0", "1"],
}
PROJECT = Project(name="digits", bucket="digits-train")


def comparison(challenger: int, champion: int | None, champion_run: str = "run-3") -> dict[str, Any]:
    def score(run_id: str, correct: int) -> dict[str, Any]:
        return {
            "run_id": run_id, "accuracy": correct / 100, "correct": correct, "per_class": {}, "classes": ["0", "1"]
        }  # fmt: skip

    return {
        "challenger": score(MD5, challenger),
        "champion": None if champion is None else score(champion_run, champion),
        "n": 100, "excluded": 0, "majority": {"class": "0", "accuracy": 0.5}, "won": 0, "lost": 0, "flips": [],
        "shared": None
        if champion is None
        else {"n": 100, "challenger_correct": challenger, "champion_correct": champion},
    }  # fmt: skip


class Instance:
    """A task instance with the XComs of the tasks before it."""

    dag_id, run_id, task_id, map_index = "digits__retrain", "manual__1", "deploy", -1

    def __init__(self, **results: Any) -> None:
        self.xcoms = {(task, "return_value"): value for task, value in results.items()}
        self.pushed: dict[str, Any] = {}

    def xcom_pull(self, *, task_ids: str, key: str = "return_value") -> Any:
        return self.xcoms.get((task_ids, key))

    def xcom_push(self, *, key: str, value: Any) -> None:
        self.pushed[key] = value


def _context(instance: Instance, run_type: str = "asset_triggered", **params: Any) -> Any:
    return {"ti": instance, "params": params, "dag_run": SimpleNamespace(run_type=run_type)}


def champion_is(monkeypatch: pytest.MonkeyPatch, version: str | None, run_id: str = "run-3") -> None:
    record = SimpleNamespace(model_version=version, run_id=run_id) if version else None
    monkeypatch.setattr(include.real_world, "releases", lambda _: SimpleNamespace(champion=lambda _: record))
    monkeypatch.setattr(evaluate_operator, "get_settings", lambda: None)


def container_answers(monkeypatch: pytest.MonkeyPatch, result: dict[str, Any]) -> list[dict[str, str]]:
    environments: list[dict[str, str]] = []

    def execute(self: ContainerOperator, _: object) -> dict[str, Any]:
        environments.append(dict(self.environment))
        return result

    monkeypatch.setattr(ContainerOperator, "execute", execute)
    return environments


def gated(
    monkeypatch: pytest.MonkeyPatch, challenger: int, run_type: str, params: dict[str, Any]
) -> tuple[list[str], dict[str, Any]]:
    """The branch that the gate follows, and its decision, beside a champion with 95 % right."""
    gate = GateOperator(
        task_id="gate", evaluate="evaluate", thresholds=GateThresholds(), accept="deploy", refuse="keep_champion"
    )
    instance = Instance(evaluate=comparison(challenger, 95))
    instance.xcoms["evaluate", "champion_version"] = "3"
    chosen: list[str] = []
    monkeypatch.setattr(GateOperator, "do_branch", lambda self, context, branch: chosen.append(branch))
    gate.execute(_context(instance, run_type, **params))
    return chosen, instance.pushed["return_value"]


@pytest.mark.parametrize(("challenger", "followed"), [(99, "deploy"), (90, "keep_champion")])
def test_the_gate_leaves_its_decision_and_follows_one_branch(
    monkeypatch: pytest.MonkeyPatch, challenger: int, followed: str
) -> None:
    chosen, decision = gated(monkeypatch, challenger, "asset_triggered", {})
    assert chosen == [followed]
    assert decision["deploy"] is (followed == "deploy")
    assert decision["champion_version"] == "3"
    assert decision["reason"]


@pytest.mark.parametrize(
    ("run_type", "params", "said"),
    [
        ("backfill", {}, "not deployed, since it is a backfill whose conf does not say `deploy: yes`: 99.0 % against"),
        ("backfill", {"deploy": "no"}, "not deployed, as this run was asked: 99.0 %"),
        ("manual", {"deploy": "no"}, "not deployed, as this run was asked: 99.0 %"),
        ("backfill", {"deploy": "yes"}, "deploy: 99.0 %"),
        ("manual", {"deploy": None}, "deploy: 99.0 %"),
    ],
)
def test_a_backfill_deploys_only_where_its_conf_says_so(
    monkeypatch: pytest.MonkeyPatch, run_type: str, params: dict[str, Any], said: str
) -> None:
    chosen, decision = gated(monkeypatch, 99, run_type, params)
    assert decision["reason"].startswith(said)
    assert chosen == ["deploy" if decision["deploy"] else "keep_champion"]
    assert decision["deploy"] is said.startswith("deploy")


def test_a_backfill_that_lost_says_that_it_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    _, decision = gated(monkeypatch, 90, "backfill", {})
    assert decision["reason"].startswith("kept champion: 90.0 % against 95.0 %")


def test_the_challenger_is_compared_with_what_serves_when_the_task_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    champion_is(monkeypatch, "3", "run-3")
    environments = container_answers(monkeypatch, comparison(99, 95, "run-3"))
    instance = Instance()
    EvaluateOperator(task_id="evaluate", project=PROJECT, challenger_run_id=MD5).execute(_context(instance))
    assert environments == [{"CHALLENGER_RUN_ID": MD5, "CHAMPION_RUN_ID": "run-3"}]
    assert instance.pushed == {"champion_version": "3"}


def test_a_comparison_with_a_former_champion_is_not_taken_for_one_with_the_present(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    champion_is(monkeypatch, "4", "run-4")
    container_answers(monkeypatch, comparison(99, 95, "run-3"))
    with pytest.raises(AirflowException, match="serves no longer"):
        EvaluateOperator(task_id="evaluate", project=PROJECT, challenger_run_id=MD5).execute(_context(Instance()))


def deploy_once_champion_is(monkeypatch: pytest.MonkeyPatch, version: str) -> list[Wish]:
    wishes: list[Wish] = []

    def deploy(_: object, __: Project, wish: Wish) -> Deployed:
        if wish.champion_version != version:
            raise ChampionChanged(f"compared with {wish.champion_version}, but {version} serves now")
        wishes.append(wish)
        return Deployed(release_id="20261123T180000000Z-v7", colour="blue", previous_release_id=None)

    monkeypatch.setattr(deploy_operator, "deploy", deploy)
    monkeypatch.setattr(include.real_world, "real_world", lambda: None)
    return wishes


def deploy_after_gate_saw_version_3() -> Any:
    instance = Instance(
        train=TRAINED,
        register={
            "run_id": MD5,
            "dvc_hash": MD5,
            "model_version": "7",
            "provenance": {"experiment_id": "1", "git_commit": "abc", "image_id": "sha256:t", "accuracy": 0.97},
        },
        gate={"deploy": True, "reason": "better than 3", "champion_version": "3"},
    )
    operator = DeployOperator(task_id="deploy", project=PROJECT, challenger_run_id=MD5)
    return operator.execute(_context(instance))


def test_what_the_gate_let_through_is_deployed_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    deploy_once_champion_is(monkeypatch, "3")
    assert deploy_after_gate_saw_version_3()["reason"] == "better than 3"


def test_a_second_run_gated_against_the_same_champion_is_compared_with_the_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wishes = deploy_once_champion_is(monkeypatch, "4")
    champion_is(monkeypatch, "4", "run-4")
    container_answers(monkeypatch, comparison(99, 95, "run-4"))
    deployed = deploy_after_gate_saw_version_3()
    assert [wish.champion_version for wish in wishes] == ["4"]
    assert "99.0 % against 95.0 %" in deployed["reason"]


def test_a_second_run_that_the_new_champion_beats_is_not_deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    wishes = deploy_once_champion_is(monkeypatch, "4")
    champion_is(monkeypatch, "4", "run-4")
    container_answers(monkeypatch, comparison(95, 99, "run-4"))
    with pytest.raises(AirflowSkipException, match="kept champion"):
        deploy_after_gate_saw_version_3()
    assert wishes == []


@pytest.mark.parametrize(
    "error",
    [
        DeployError("not healthy after 20 attempts"),
        ContainerError("the API image is not on the Docker host"),
        SettingsError("AIRLOCK_MLFLOW_URL is not set"),
    ],
)
def test_what_another_attempt_would_meet_too_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    deploy_once_champion_is(monkeypatch, "3")

    def refused(*_: object) -> Deployed:
        raise error

    monkeypatch.setattr(deploy_operator, "deploy", refused)
    with pytest.raises(AirflowFailException, match=str(error)):
        deploy_after_gate_saw_version_3()


@pytest.mark.parametrize(("status", "removed"), [(500, False), (400, True)])
def test_a_container_that_runs_is_left_for_the_retry_where_the_engine_has_trouble(
    monkeypatch: pytest.MonkeyPatch, status: int, removed: bool
) -> None:
    gone: list[str] = []

    def trouble(*_: object) -> Any:
        response = requests.Response()
        response.status_code = status
        raise APIError("device or resource busy", response=response)

    monkeypatch.setattr(containers, "run", trouble)
    monkeypatch.setattr(containers, "stop_and_remove", lambda client, name, grace: gone.append(name))
    operator = EvaluateOperator(task_id="evaluate", project=PROJECT, challenger_run_id=MD5)
    with pytest.raises(APIError):
        operator._run(cast(Any, None), cast(Any, SimpleNamespace(name="airlock-digits-evaluate-1")))
    assert bool(gone) is removed
