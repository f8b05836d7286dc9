"""A container is stopped where its task was given up, and left where Airflow is being restarted."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from include.airflow_api import AirflowApi
from include.container_reaper import given_up
from include.containers import TaskInstance

INSTANCE = TaskInstance("digits__retrain", "manual__1", "train")


class Api(AirflowApi):
    """Says these things of the task, one after the other; an exception is raised."""

    def __init__(self, *answers: Any) -> None:
        super().__init__("http://airflow", "")
        self.answers = list(answers)

    def task_state(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> str | None:
        assert (dag_id, run_id, task_id, map_index) == ("digits__retrain", "manual__1", "train", -1)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]


@pytest.mark.parametrize("state", ["failed", "success", "skipped", "restarting", "removed", None])
def test_what_a_person_has_ended_or_cleared_is_given_up(state: str | None) -> None:
    assert given_up(Api(state), INSTANCE)


@pytest.mark.parametrize("state", ["running", "queued", "scheduled", "up_for_retry"])
def test_what_goes_on_is_not(state: str) -> None:
    assert not given_up(Api(state), INSTANCE)


def test_an_airflow_that_is_away_for_a_moment_is_asked_again() -> None:
    assert given_up(Api(requests.ConnectionError(), "failed"), INSTANCE)


def test_an_airflow_that_is_being_stopped_gives_nothing_up() -> None:
    assert not given_up(Api(requests.ConnectionError()), INSTANCE, patience_seconds=0)
