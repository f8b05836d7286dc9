"""Addresses of Airflow's pages."""

from __future__ import annotations

from urllib.parse import quote


def run_page(airflow: str, dag_id: str, run_id: str) -> str:
    """The page of a run; `airflow` is the address as a person's browser sees it."""
    return f"{airflow}/dags/{dag_id}/runs/{quote(run_id, safe='')}"
