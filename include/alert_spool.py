"""Reports on their way to the watchdog: one file each in a directory, so that no outage loses or delays one.

A task's process, the scheduler and the triggerer write; the watchdog reads. A file appears whole, by a rename.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex

from pydantic import ValidationError

from include.incidents import Kind, Report

log = logging.getLogger(__name__)

SUFFIX = ".report.json"


class Spool:
    """The directory of the reports; without one, nothing is reported."""

    def __init__(self, directory: Path | None) -> None:
        self.directory = directory

    def broken(self, project: str, kind: Kind, why: str, next_step: str, link: str = "") -> None:
        """Report trouble: its own sentence, what a person does next, and where to look."""
        self._write(Report(project=project, kind=kind, at=datetime.now(UTC), why=why, next_step=next_step, link=link))

    def well(self, project: str, kind: Kind) -> None:
        """Report that there is no such trouble, any more."""
        self._write(Report(project=project, kind=kind, at=datetime.now(UTC), well=True))

    def waiting(self) -> Iterator[tuple[str, Report]]:
        """Name and content of each report, in the order of writing; one that nobody can read is removed, and said."""
        for path in sorted(self.directory.glob(f"*{SUFFIX}") if self.directory else ()):
            try:
                yield path.name, Report.model_validate_json(path.read_bytes())
            except (OSError, ValidationError) as error:
                log.error("a report could not be read and is removed: %s: %s", path.name, " ".join(str(error).split()))
                self.remove(path.name)

    def remove(self, name: str) -> None:
        """Remove a report that was taken in."""
        if self.directory is not None:
            (self.directory / name).unlink(missing_ok=True)

    def _write(self, report: Report) -> None:
        if self.directory is None:
            return
        name = f"{time.time_ns():020d}-{os.getpid()}-{token_hex(3)}"
        part = self.directory / f"{name}.part"
        try:
            part.write_text(report.model_dump_json())
            part.rename(self.directory / f"{name}{SUFFIX}")
        except OSError as error:
            # Whoever reports must not fail by it.
            log.error("a report of project %s (%s) is lost: %s", report.project, report.kind, error)


def spool() -> Spool:
    """The one of this process's environment; it needs no other setting, since a wrong one is trouble to report."""
    directory = os.environ.get("AIRLOCK_ALERTS_DIR")
    return Spool(Path(directory) if directory else None)
