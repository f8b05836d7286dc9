"""What the demo reads from Airflow's REST API."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

SECONDS = 20


@dataclass(frozen=True)
class Task:
    """One task of a DAG run."""

    task_id: str
    state: str | None
    start_date: str | None


class Airflow:
    """A logged-in client. Every call raises OSError where Airflow does not answer."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self.url = url
        body = json.dumps({"username": user, "password": password}).encode()
        request = urllib.request.Request(f"{url}/auth/token", body, {"Content-Type": "application/json"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
            self._token = json.load(answer)["access_token"]

    def _get(self, path: str) -> Any:
        request = urllib.request.Request(  # noqa: S310
            f"{self.url}/api/v2{path}", headers={"Authorization": f"Bearer {self._token}"}
        )
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
            return json.load(answer)

    def newest_run(self, dag_id: str) -> tuple[str, str] | None:
        """Id and state of the DAG's newest run, or None where there is none yet."""
        try:
            runs = self._get(f"/dags/{dag_id}/dagRuns?limit=1&order_by=-run_after")["dag_runs"]
        except urllib.error.HTTPError as error:
            if error.code == 404:  # not parsed yet
                return None
            raise
        return (runs[0]["dag_run_id"], runs[0]["state"]) if runs else None

    def tasks(self, dag_id: str, run_id: str) -> list[Task]:
        """The tasks of a run."""
        path = f"/dags/{dag_id}/dagRuns/{urllib.parse.quote(run_id)}/taskInstances"
        return [Task(t["task_id"], t["state"], t["start_date"]) for t in self._get(path)["task_instances"]]

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str) -> Any:
        """An XCom's value, or None where it is not there."""
        run = urllib.parse.quote(run_id)
        try:
            entry = f"/dags/{dag_id}/dagRuns/{run}/taskInstances/{task_id}/xcomEntries/{key}"
            return self._get(f"{entry}?deserialize=true")["value"]
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def link(self, dag_id: str, run_id: str, task_id: str = "") -> str:
        """The page of a run, or of one of its tasks."""
        page = f"{self.url}/dags/{dag_id}/runs/{urllib.parse.quote(run_id)}"
        return f"{page}/tasks/{task_id}" if task_id else page
