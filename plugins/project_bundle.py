"""A bundle with one DAG file for each project, so that a broken project breaks its own DAGs only; and Airlock's own."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow.dag_processing.bundles.base import BaseDagBundle

from include.project import PROJECTS_FOLDER, project_files

# Airflow reads a file again once it is younger than its last reading. A file that changes with what it is made from is
# written at the moment when the change is seen; with the YAML's own time, a change during a reading would be missed.
_DAG_FILE = '''"""The Airflow DAGs of the project {name}: made by dags/projects.py from include/projects/{name}.yaml.

The YAML file is of {changed_at:%Y-%m-%d %H:%M:%S.%f} UTC.
"""

from dags.projects import dags_of

globals().update(dags_of({name!r}))
'''


# No project has this name.
_OWN_FILE = "airlock"
_OWN_DAGS = '''"""Airlock's own Airflow DAGs, made by dags/airlock.py.

Their forms list the projects: {names}.
"""

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
        with self.lock():
            files = self._texts()
            self.path.mkdir(parents=True, exist_ok=True)
            for file in self.path.glob("*.py"):
                if file.stem not in files:
                    file.unlink()
            for name, text in files.items():
                _write(self.path / f"{name}.py", text)

    def _texts(self) -> dict[str, str]:
        projects = {path.stem: path.stat().st_mtime for path in project_files(self._projects_folder)}
        texts = {_OWN_FILE: _OWN_DAGS.format(names=", ".join(projects))}
        for name, changed_at in projects.items():
            texts[name] = _DAG_FILE.format(name=name, changed_at=datetime.fromtimestamp(changed_at, UTC))
        return texts


def _write(file: Path, text: str) -> None:
    if file.exists() and file.read_text() == text:
        return
    # Never half a file: a task may be reading it.
    fresh = file.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(file)
