"""`python -m plugins.preloaded scheduler`: `airflow scheduler` with what its tasks import already there.

Airflow forks a process for each task, and for each DAG file that it reads. What the parent has imported, none of them
imports again. Only what comes with the image is imported here: Airlock's own modules change while it runs.
"""

from __future__ import annotations

import importlib
import runpy
import sys

EVERYONES = (
    "airflow.dag_processing.dagbag",
    "airflow.providers.amazon.aws.hooks.s3",
    "airflow.providers.docker.operators.docker",
    "airflow.providers.standard.decorators.python",
    "airflow.providers.standard.operators.hitl",
    "airflow.sdk.bases.sensor",
    "airflow.sdk.execution_time.task_runner",
    "boto3.session",
    "prometheus_client.parser",
    "pydantic_settings",
)
# Of the steps that register and release: no DAG file needs it.
TASKS = ("mlflow.tracking",)

if __name__ == "__main__":
    for name in (*EVERYONES, *(TASKS if "scheduler" in sys.argv else ())):
        importlib.import_module(name)
    runpy.run_module("airflow", run_name="__main__")
