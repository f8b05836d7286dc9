"""The Assets that tie the DAGs together: declared once, for producer and consumer."""

from __future__ import annotations

from airflow.sdk import Asset


def snapshots_of(project: str) -> Asset:
    """The snapshots of a project's dataset; each is a partition, its id the key."""
    uri = f"airlock://snapshots/{project}"
    return Asset(name=uri, uri=uri, group="airlock")
