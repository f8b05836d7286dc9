"""Names, labels, and what a container's spec shows."""

from __future__ import annotations

import pytest

from include.containers import TaskContainer, TaskInstance


def test_a_retry_has_the_name_and_the_labels_of_the_first_try() -> None:
    first, second = (TaskInstance("d", "r", "train", -1, number) for number in (1, 2))
    assert first.container_name("digits") == second.container_name("digits")
    assert first.labels() == second.labels()


@pytest.mark.parametrize(
    "other", [TaskInstance("d", "r2", "t"), TaskInstance("dr", "", "t"), TaskInstance("d", "r", "t", 1)]
)
def test_two_task_instances_never_share_a_name(other: TaskInstance) -> None:
    assert other.container_name("digits") != TaskInstance("d", "r", "t").container_name("digits")


def test_a_task_in_a_group_gets_a_name_that_docker_takes() -> None:
    assert (
        TaskInstance("d", "r", "Learn.train it").container_name("digits").startswith("airlock-digits-learn.train-it-")
    )


def test_a_spec_shows_no_secret() -> None:
    spec = TaskContainer(TaskInstance("d", "r", "t"), "digits", "i", (), "airlock", 1, secrets={"KEY": "canary"})
    assert "canary" not in repr(spec)
