"""Whether an automatic run is still worth training: where its dataset has changed again, the newer run is."""

from __future__ import annotations

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowSkipException
from run_listener import say_outcome

from include import snapshots
from include.run_outcome import SUPERSEDED
from include.settings import get_settings


def skip_if_superseded(context: Context, project: str, snapshot_id: str) -> None:
    """Skip the task, and so the run, of an automatic run that has waited while a newer snapshot was taken.

    A run that a person asked for is never superseded: a backfill, one by hand, or one that was cleared. Nor is an
    attempt after the first: what it goes on with has begun. Raises StorageError.
    """
    run, instance = context["dag_run"], context["ti"]
    if run.run_type != "asset_triggered" or run.clear_number or instance.try_number > 1:
        return
    newest = snapshots.snapshot_ids(get_settings(), project)[-1:]
    if newest and newest[0] > snapshot_id:
        words = f"{SUPERSEDED}: the snapshot {newest[0]} is newer, and has a run of its own"
        say_outcome(instance, words)
        raise AirflowSkipException(words)
