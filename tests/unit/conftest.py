"""Airflow is imported by some of these tests: it is given a home of its own, and needs no database."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parents[2]

# Read when `airflow` is first imported, so before any test module.
os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="airlock-unit-airflow-"))
os.environ.setdefault("AIRFLOW__CORE__PLUGINS_FOLDER", str(ROOT / "plugins" / "loaded"))
os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")

# A machine that is busy with something else must not fail a property, nor an example that the last run did not see.
settings.register_profile("airlock", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("airlock")
