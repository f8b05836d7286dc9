"""Compares the new model with the one that serves, in the API image."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowException
from container_operator import ContainerOperator

from include.project import Project
from include.settings import get_settings

CHAMPION_VERSION = "champion_version"


class EvaluateOperator(ContainerOperator):
    """Scores challenger and champion on the same pictures; returns the result of `evaluate`.

    The champion is read when the task runs, and its model version is pushed as the XCom `champion_version`:
    a release is refused where another one serves by then.

    :param project: the project
    :param challenger_run_id: the MLflow run to compare (templated)
    """

    def __init__(self, *, project: Project, challenger_run_id: str, **kwargs: Any) -> None:
        super().__init__(
            project=project.name,
            train_bucket=project.bucket,
            memory_bytes=project.memory_bytes,
            image="api",
            command=["evaluate"],
            environment={"CHALLENGER_RUN_ID": challenger_run_id},
            **kwargs,
        )
        self.project_settings = project

    def execute(self, context: Context) -> Any:
        """Run the comparison."""
        result, champion_version = self.compare(context)
        context["ti"].xcom_push(key=CHAMPION_VERSION, value=champion_version)
        return result

    def compare(self, context: Context) -> tuple[dict[str, Any], str | None]:
        """The result, and the model version of the champion in it (None: there is none)."""
        from include.real_world import releases  # much to import, and nothing that reading the DAG needs

        champion = releases(get_settings()).champion(self.project)
        self.environment["CHAMPION_RUN_ID"] = champion.run_id if champion else ""
        self.log.info("champion: %s", f"version {champion.model_version}" if champion else "none yet")
        result: dict[str, Any] = super().execute(context)
        compared = (result["champion"] or {}).get("run_id")
        if compared != (champion.run_id if champion else None):
            # The container of an attempt that was killed, found again: it was started against an earlier champion.
            raise AirflowException(f"compared with the run {compared}, which serves no longer: compares again")
        return result, champion.model_version if champion else None
