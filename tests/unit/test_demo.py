"""What `make demo` shows while it waits, and how it ends where no model comes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import demo.__main__ as program
import pytest
from demo.airflow_api import Task

RUN = "asset_triggered__1"


@dataclass
class FakeAirflow:
    """Airflow as the demo asks it."""

    url: str = "http://127.0.0.1:8080"
    runs: dict[str, tuple[str, str]] = field(default_factory=dict)
    done: list[Task] = field(default_factory=list)
    xcoms: dict[str, Any] = field(default_factory=dict)

    def newest_run(self, dag_id: str) -> tuple[str, str] | None:
        return self.runs.get(dag_id)

    def tasks(self, dag_id: str, run_id: str) -> list[Task]:
        return self.done

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str) -> Any:
        return self.xcoms.get(f"{task_id}.{key}")

    def link(self, dag_id: str, run_id: str, task_id: str = "") -> str:
        return f"{self.url}/dags/{dag_id}/runs/{run_id}" + (f"/tasks/{task_id}" if task_id else "")


def show(airflow: FakeAirflow) -> None:
    program.show(airflow, program.Progress())  # type: ignore[arg-type]


def test_while_nothing_runs_the_watch_says_what_it_waits_for(capsys: pytest.CaptureFixture[str]) -> None:
    words = "1,779 files, last change 3 s ago, starts at 14:07:10 unless it changes"
    show(FakeAirflow(runs={program.WATCH: ("scheduled__1", "running")}, xcoms={"wait_for_change.progress": words}))
    assert f"0 s  watch: {words}\n" in capsys.readouterr().out


def test_each_stage_is_shown_as_it_comes_with_the_place_to_look(capsys: pytest.CaptureFixture[str]) -> None:
    stages = [Task("train", "running", "14:08"), Task("gpu_check", "success", "14:07"), Task("register", None, None)]
    show(FakeAirflow(runs={program.RETRAIN: (RUN, "running")}, done=stages))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("s  ", 1)[1] for line in lines] == [
        "gpu_check: success",
        f"train: running   http://127.0.0.1:8080/dags/digits__retrain/runs/{RUN}/tasks/train",
    ]


def test_a_failed_pipeline_ends_the_demo_with_its_log_and_the_next_step() -> None:
    with pytest.raises(program.DemoError, match=rf"mend the cause, clear the failed task: .*/runs/{RUN}$"):
        show(FakeAirflow(runs={program.RETRAIN: (RUN, "failed")}))


def test_a_first_model_that_the_gate_keeps_out_ends_the_demo_with_the_gates_reason() -> None:
    reason = "nothing deployed: 12.0 % on 350 pictures"
    refused = FakeAirflow(
        runs={program.RETRAIN: (RUN, "success")},
        done=[Task("keep_champion", "success", "14:09")],
        xcoms={"gate.return_value": {"reason": reason}},
    )
    with pytest.raises(program.DemoError, match=reason):
        show(refused)
