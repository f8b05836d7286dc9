"""The gate: whether the challenger may be released, with its reason."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseOperator, Context
from airflow.sdk.bases.branch import BranchMixIn
from evaluate_operator import CHAMPION_VERSION

from include.gate import Comparison, Decision, GateThresholds, decide, held_back


class GateOperator(BaseOperator, BranchMixIn):
    """Decides on the comparison and follows one of two branches.

    A backfill compares and never goes on to a deploy, unless the run's parameter `deploy` is `yes`; where that is `no`,
    no run does. Leaves `{"deploy", "reason", "champion_version"}` as its result.

    :param evaluate: task id of the comparison
    :param thresholds: the project's conditions
    :param accept: task id to go on with where the challenger may be released
    :param refuse: task id to go on with where it may not
    """

    inherits_from_skipmixin = True

    def __init__(self, *, evaluate: str, thresholds: GateThresholds, accept: str, refuse: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.evaluate = evaluate
        self.thresholds = thresholds
        self.accept = accept
        self.refuse = refuse

    def execute(self, context: Context) -> None:
        """Decide, say why, and branch."""
        instance = context["ti"]
        comparison = Comparison.model_validate(instance.xcom_pull(task_ids=self.evaluate))
        decision = _if_wanted(decide(comparison, self.thresholds), context)
        champion_version = instance.xcom_pull(task_ids=self.evaluate, key=CHAMPION_VERSION)
        self.log.info("%s", decision.reason)
        # Branching ends the task by an exception, so that a returned value would be lost.
        instance.xcom_push(
            key="return_value",
            value={"deploy": decision.deploy, "reason": decision.reason, "champion_version": champion_version},
        )
        self.do_branch(context, self.accept if decision.deploy else self.refuse)


def _if_wanted(decision: Decision, context: Context) -> Decision:
    wanted: str | None = context["params"].get("deploy")
    if not decision.deploy or wanted == "yes":
        return decision
    if wanted == "no":
        return held_back(decision, "as this run was asked")
    if context["dag_run"].run_type == "backfill":
        return held_back(decision, "since it is a backfill whose conf does not say `deploy: yes`")
    return decision
