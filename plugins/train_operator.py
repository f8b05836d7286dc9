"""Trains in the trainer image, and leads from the task to its MLflow run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import requests
from airflow.sdk import BaseOperator, BaseOperatorLink, Context
from container_operator import ContainerOperator
from superseding import skip_if_superseded

from include.airflow_api import AirflowApi
from include.containers import Pool
from include.settings import Settings, get_settings

REPORT = "preflight/report.html"


class MlflowRunLink(BaseOperatorLink):
    """Leads to the run in MLflow."""

    name = "MLflow run"
    page = ""

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """The address as a person's browser sees it; empty where no run was opened, and then there is no link.

        Airflow asks in the task's own process when the task has ended, well or not, and keeps the answer.
        """
        run = operator.mlflow_run if isinstance(operator, TrainOperator) else None
        if run is None:
            return ""
        experiment_id, run_id = (quote(each, safe="") for each in run)
        # Without the last words MLflow shows its pages for language models around the run.
        page = f"#/experiments/{experiment_id}/runs/{run_id}{self.page}?workflowType=machine_learning"
        return f"{get_settings().mlflow_public_url}/{page}"


class DatasetReportLink(MlflowRunLink):
    """Leads to what preflight found in the dataset."""

    name = "Dataset report"
    page = f"/artifacts/{REPORT}"


class TrainOperator(ContainerOperator):
    """Runs `train`; its task has links to the MLflow run and to preflight's report there, also where it failed.

    Skipped where a newer snapshot has come while the run waited for its pool: see `superseding`. No more trainings run
    than the pool has slots, also where one's task has died and its container goes on.
    """

    operator_extra_links = (DatasetReportLink(), MlflowRunLink())

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(command=["train"], **kwargs)
        self.mlflow_run: tuple[str, str] | None = None

    def execute(self, context: Context) -> Any:
        """Train, unless there is something newer to train on."""
        skip_if_superseded(context, self.project, self.environment["SNAPSHOT_ID"])
        return super().execute(context)

    def _places(self, settings: Settings) -> Pool | None:
        api = AirflowApi(settings.airflow_url, settings.watchdog_password.get_secret_value())
        try:
            # One at least: Airflow has just given it to this task, and a person may have closed the pool since.
            return Pool(self.pool, max(api.pool_slots(self.pool), 1))
        except (requests.RequestException, ValueError, KeyError) as error:
            self.log.warning("Airflow does not tell the slots of the pool %s (%s): one is assumed", self.pool, error)
            return Pool(self.pool, 1)

    def note(self, result: Mapping[str, Any]) -> None:
        """Remember the run, of which a failed training tells too, for the links."""
        match result:
            case {"experiment_id": str(experiment_id), "run_id": str(run_id)}:
                self.mlflow_run = experiment_id, run_id
