"""Airflow's REST API, as a user who may only read."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import requests

TIMEOUT_SECONDS = 10
# The user's name; its password is AIRFLOW_WATCHDOG_PASSWORD.
USER = "watchdog"
PAGE = 200


class AirflowApi:
    """Reads from Airflow. Raises requests.RequestException where it does not answer, or refuses."""

    def __init__(self, url: str, password: str) -> None:
        self.url = url.rstrip("/")
        self._password = password
        self._token = ""

    def health(self) -> dict[str, Any]:
        """The states of Airflow's parts; nobody needs to log in for it."""
        answer = requests.get(f"{self.url}/api/v2/monitor/health", timeout=TIMEOUT_SECONDS)
        answer.raise_for_status()
        return _object(answer)

    def all(self, path: str, key: str) -> list[dict[str, Any]]:
        """Every row of a collection, page by page; `key` is what the answer calls the rows."""
        rows: list[dict[str, Any]] = []
        while True:
            page = _object(self._get(f"{path}{'&' if '?' in path else '?'}limit={PAGE}&offset={len(rows)}"))
            rows += page[key]
            if len(rows) >= page["total_entries"] or not page[key]:
                return rows

    def pool_slots(self, pool: str) -> int:
        """How many slots a pool has."""
        return int(_object(self._get(f"/pools/{quote(pool, safe='')}"))["slots"])

    def task_state(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> str | None:
        """A task instance's state; "removed" where Airflow does not know it, None while it has none."""
        task = f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances/{task_id}"
        try:
            answer = self._get(task if map_index < 0 else f"{task}/{map_index}")
        except requests.HTTPError as error:
            if error.response.status_code == requests.codes.not_found:
                return "removed"
            raise
        state: str | None = _object(answer)["state"]
        return state

    def _get(self, path: str) -> requests.Response:
        answer = self._ask(path)
        if answer.status_code == requests.codes.unauthorized:  # a token lasts a day
            self._log_in()
            answer = self._ask(path)
        answer.raise_for_status()
        return answer

    def _ask(self, path: str) -> requests.Response:
        headers = {"Authorization": f"Bearer {self._token}"}
        return requests.get(f"{self.url}/api/v2{path}", headers=headers, timeout=TIMEOUT_SECONDS)

    def _log_in(self) -> None:
        body = {"username": USER, "password": self._password}
        answer = requests.post(f"{self.url}/auth/token", json=body, timeout=TIMEOUT_SECONDS)
        answer.raise_for_status()
        self._token = str(_object(answer)["access_token"])


def _object(answer: requests.Response) -> dict[str, Any]:
    content: dict[str, Any] = answer.json()
    return content
