"""What Airflow learns from Airlock by its plugin interface."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin
from automatic_first import AutomaticFirst
from run_listener import RunListener
from snapshot_timetable import SnapshotMapper, SnapshotTimetable

PAGE = "/airlock"


async def page(scope: Any, receive: Any, send: Any) -> None:
    """The page's application, imported by who serves it: Airflow loads this plugin in every process of every task."""
    from airlock_page import app

    await app(scope, receive, send)


class AirlockPlugin(AirflowPlugin):
    """Registers the timetable of snapshots with its mapper, the order at the pools, the listener, and the page."""

    name = "airlock"
    timetables = [SnapshotTimetable]  # noqa: RUF012 - Airflow's interface
    partition_mappers = [SnapshotMapper]  # noqa: RUF012
    priority_weight_strategies = [AutomaticFirst]  # noqa: RUF012
    listeners = [RunListener()]  # noqa: RUF012
    fastapi_apps = [{"app": page, "url_prefix": PAGE, "name": "Airlock"}]  # noqa: RUF012
    # Shown in a frame of Airflow's: of a link without a route, Airflow 3.3.2 makes a button that leads nowhere.
    external_views = [  # noqa: RUF012
        {"name": "Airlock", "href": f"{PAGE}/", "destination": "nav", "url_route": "airlock"}
    ]
