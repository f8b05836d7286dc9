"""The one JSON file that a command leaves behind."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DEFAULT_PATH = Path("/results/result.json")


def result_path(environment: Mapping[str, str]) -> Path:
    """Where the result goes; read apart from the settings, because their failure is written there too."""
    return Path(environment.get("RESULT_PATH") or DEFAULT_PATH)


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """Write `result` so that a reader sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(result))
    os.replace(partial, path)
