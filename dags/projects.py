"""The DAGs of one project, from its YAML file."""

from __future__ import annotations

from airflow.sdk import DAG, get_parsing_context

from dags.retrain import retrain_dag
from dags.watch import watch_dag
from include.project import PROJECTS_FOLDER, load_all

FACTORIES = {"watch": watch_dag, "retrain": retrain_dag}


def dags_of(name: str) -> dict[str, DAG]:
    """The project's DAGs by id; in a task's process only the one that it needs.

    Raises ProjectError where the file is wrong, with every mistake: Airflow shows it as the import error of this
    project, and the others go on. All files are read since two projects may not share a bucket.
    """
    projects = load_all(PROJECTS_FOLDER)
    if name in projects.broken:
        raise projects.broken[name]
    asked = get_parsing_context().dag_id
    dags = {f"{name}__{kind}": factory for kind, factory in FACTORIES.items()}
    return {
        dag_id: factory(dag_id, projects.usable[name]) for dag_id, factory in dags.items() if asked in (None, dag_id)
    }
