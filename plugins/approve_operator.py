"""A person decides whether a release goes on, with the comparison before their eyes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.configuration import conf
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowFailException
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import CreateHITLDetailPayload
from airflow.sdk.execution_time.hitl import HITLUser
from run_listener import say_outcome

from include.airflow_pages import run_page
from include.alert_spool import spool
from include.approval_body import approval_body
from include.gate import Comparison
from include.project import Project


class ApproveOperator(ApprovalOperator):
    """Waits for an approval, without a worker; what nobody answers in time is rejected, and what serves goes on.

    :param project: the project, which names who may approve and how long they have
    :param evaluate: task id of the comparison
    :param gate: task id of the decision
    """

    def __init__(self, *, project: Project, evaluate: str, gate: str, **kwargs: Any) -> None:
        super().__init__(
            subject=f"Release the new model of {project.name}?",
            defaults=self.REJECT,
            response_timeout=timedelta(hours=project.approval_hours),
            assigned_users=[HITLUser(id=name, name=name) for name in project.approvers] or None,
            **kwargs,
        )
        self.project = project.name
        self.evaluate = evaluate
        self.gate = gate

    def execute(self, context: Context) -> Any:
        """Show the comparison, tell the channels, and wait."""
        instance = context["ti"]
        reason = instance.xcom_pull(task_ids=self.gate)["reason"]
        self.body = approval_body(Comparison.model_validate(instance.xcom_pull(task_ids=self.evaluate)), reason)
        self._ask(instance)
        page = run_page(conf.get("api", "base_url", fallback=""), instance.dag_id, instance.run_id)
        link = f"{page}/tasks/{self.task_id}/required_actions"
        spool().broken(self.project, "approval", reason, "look at the comparison, and approve or reject", link)
        return super().execute(context)

    def _ask(self, instance: Any) -> None:
        """Put the question. Fails where another one is shown: Airflow keeps a task's first, also when it is cleared.

        Somebody would approve by the figures of an earlier training, or though they no longer may. Airflow's own
        operator puts the question too, without a look at what is shown.
        """
        asked = CreateHITLDetailPayload.model_validate(
            {
                "ti_id": instance.id,
                "subject": self.subject,
                "body": self.body,
                "options": self.options,
                "defaults": self.defaults,
                "multiple": self.multiple,
                "params": self.serialized_params,
                "assigned_users": self.assigned_users or [],
            }
        )
        shown: Any = task_runner.SUPERVISOR_COMMS.send(asked)
        if shown.body != asked.body or (shown.assigned_users or []) != asked.assigned_users:
            raise AirflowFailException(
                "Airflow keeps the question of an earlier attempt, with other figures or other approvers: "
                "trigger a new run for this snapshot"
            )

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Go on, or skip the release and say who has rejected it."""
        spool().well(self.project, "approval")
        if event.get("chosen_options") == [self.REJECT]:  # then the skipping below ends the task
            person = event.get("responded_by_user")
            who = f"rejected by {person['name']}" if person else "rejected, since nobody answered in time"
            say_outcome(context["ti"], f"{who}: {context['ti'].xcom_pull(task_ids=self.gate)['reason']}")
        return super().execute_complete(context, event)
