"""A bundle with one DAG file for each project, so that a broken project breaks its own DAGs only; and Airlock's own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from airflow.dag_processing.bundles.base import BaseDagBundle

from include.project import PROJECTS_FOLDER, project_files

_DAG_FILE = '''"""The Airflow DAGs of the project {name}: made by dags/projects.py from include/projects/{name}.yaml."""

from dags.projects import dags_of

globals().update(dags_of({name!r}))
'''


# No project has this name.
_OWN_FILE = "airlock"
_OWN_DAGS = '''"""Airlock's own Airflow DAGs, made by dags/airlock.py."""

from dags.airlock import airlock_dags

globals().update(airlock_dags())
'''


class ProjectBundle(BaseDagBundle):
    """Keeps a file of a few lines for each `include/projects/<name>.yaml`, in the folder that Airflow gives bundles.

    Airflow records import errors by file, and takes every DAG of such a file off its schedule: with one file for
    all projects, a mistake in one would stop the retrains of all. Named in `[dag_processor] dag_bundle_config_list`.
    """

    supports_versioning = False

    def __init__(self, *, projects_folder: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._projects_folder = Path(projects_folder) if projects_folder else PROJECTS_FOLDER

    @property
    def path(self) -> Path:
        """Where the DAG files are."""
        return self.base_dir / "dags"

    def get_current_version(self) -> None:
        """The projects of now are the only ones."""
        return None

    def initialize(self) -> None:
        """Write the files: task processes call this too, maybe on another machine than the DAG processor."""
        self.refresh()
        super().initialize()

    def refresh(self) -> None:
        """Make the files those of the projects that are there now."""
        projects = {path.stem: path.stat().st_mtime for path in project_files(self._projects_folder)}
        with self.lock():
            self.path.mkdir(parents=True, exist_ok=True)
            for file in self.path.glob("*.py"):
                if file.stem not in {*projects, _OWN_FILE}:
                    file.unlink()
            # Its form lists the projects: read again when one was added or removed.
            changed_at = self._projects_folder.stat().st_mtime
            self._write(self.path / f"{_OWN_FILE}.py", _OWN_DAGS, changed_at=changed_at)
            for name, changed_at in projects.items():
                self._write(self.path / f"{name}.py", _DAG_FILE.format(name=name), changed_at=changed_at)

    def _write(self, file: Path, text: str, *, changed_at: float) -> None:
        if not file.exists() or file.read_text() != text:
            # Never half a file: a task may be reading it.
            fresh = file.with_suffix(".new")
            fresh.write_text(text)
            fresh.replace(file)
        # The YAML's time, so that Airflow reads the DAGs again as soon as the project changes.
        if file.stat().st_mtime != changed_at:
            os.utime(file, (changed_at, changed_at))
