"""Releases the challenger beside what serves; compares again where another champion serves by now."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseOperator, BaseOperatorLink, Context
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from evaluate_operator import EvaluateOperator

from include.api_containers import ContainerError
from include.candidates import DeployError
from include.deployment import ChampionChanged, Wish, deploy
from include.gate import Comparison, decide
from include.releases import TurnLost
from include.settings import SettingsError, get_settings
from include.train_result import Registered, TrainResultError, read_train_result

# Another attempt would meet the same, or undo what a person has put back meanwhile.
HOPELESS = (DeployError, SettingsError, ContainerError, TurnLost)


class LiveApiLink(BaseOperatorLink):
    """Leads to the page of what serves."""

    name = "Live API"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """The address as a person's browser sees it; no link where that is not known."""
        front = get_settings().front_public_url
        return f"{front}/{operator.project}/" if isinstance(operator, DeployOperator) and front else ""


class DeployOperator(EvaluateOperator):
    """Starts the new container, proves it, and moves the traffic; returns what docs/contracts.md says.

    The gate's decision holds against one champion. Where that one no longer serves, the comparison is made again
    here; the task is skipped, with its reason, if the challenger does not beat what serves now. A release that
    fails its checks leaves the old container serving and is not tried again.
    """

    operator_extra_links = (LiveApiLink(),)

    def execute(self, context: Context) -> Any:
        """Deploy what the gate let through."""
        from include.real_world import real_world  # much to import, and nothing that reading the DAG needs

        try:
            wish = self._wish(context)
        except TrainResultError as error:
            raise AirflowFailException(str(error)) from error
        while True:
            try:
                deployed = deploy(real_world(), self.project_settings, wish)
                return {**deployed.model_dump(mode="json"), "reason": wish.reason}
            except ChampionChanged as changed:
                self.log.warning("%s", changed)
                wish = self._gate_again(context, wish)
            except HOPELESS as error:
                raise AirflowFailException(str(error)) from error

    def _wish(self, context: Context) -> Wish:
        instance = context["ti"]
        decision = instance.xcom_pull(task_ids="gate")
        return Wish(
            train=read_train_result(instance.xcom_pull(task_ids="train")),
            registered=Registered.model_validate(instance.xcom_pull(task_ids="register")),
            champion_version=decision["champion_version"],
            airflow_run_id=instance.run_id,
            reason=decision["reason"],
        )

    def _gate_again(self, context: Context, wish: Wish) -> Wish:
        result, champion_version = self.compare(context)
        decision = decide(Comparison.model_validate(result), self.project_settings.gate)
        self.log.info("%s", decision.reason)
        if not decision.deploy:
            raise AirflowSkipException(decision.reason)
        return wish.model_copy(update={"champion_version": champion_version, "reason": decision.reason})
