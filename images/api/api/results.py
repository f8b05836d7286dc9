"""The one JSON file that a task container leaves behind."""

import json
import os
import tempfile
from pathlib import Path

from api.errors import Failure


def write_failure(path: Path, failure: Failure) -> None:
    """Leaves the failure where Airflow looks for the result."""
    write(path, json.dumps({"error": {"kind": failure.kind, "message": str(failure)}}))


def write(path: Path, document: str) -> None:
    """Writes the JSON document; a reader sees all of it or none."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".result-")
    with os.fdopen(handle, "w") as file:
        file.write(document)
    os.chmod(name, 0o644)
    os.replace(name, path)
