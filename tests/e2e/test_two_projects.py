"""Two projects on one system: each with a trainer image of its own, nothing else between them."""

from __future__ import annotations

from tests.e2e.lab import Lab, pictures
from tests.e2e.system import System


def test_a_second_project_trains_with_other_framework_versions_and_serves_beside_the_first(
    lab: Lab, system: System
) -> None:
    lab.configure(trainer="ultralytics-8.3")
    lab.put(pictures()[:400])
    run = system.await_end(lab.await_new_retrain([]))
    assert run.state == "success", system.tasks(run)
    first, second = system.metadata("digits"), system.metadata(lab.name)
    assert first["image_id"] != second["image_id"]
    versions = [system.mlflow_run(served["run_id"])["params"]["ultralytics"] for served in (first, second)]
    assert versions[0].startswith("8.4.")
    assert versions[1].startswith("8.3.")
    for project in ("digits", lab.name):
        assert system.predict(project, pictures()[0].png).status_code == 200
