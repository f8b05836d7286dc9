"""`python -m include.watchdog`: the one place where alerts are made and sent, outside of Airflow.

It takes in what Airflow's processes report, looks at Airflow itself, keeps the incidents, and delivers. It may be
killed at any line: what was taken in is in its file before the report is removed, and what is not delivered stays.
"""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from include import alert_channels
from include.airflow_api import AirflowApi
from include.airflow_sight import AirflowSight
from include.alert_channels import Channel
from include.alert_message import message
from include.alert_spool import Spool, spool
from include.candidates import what_serves
from include.incidents import AIRLOCK, Incident, Incidents, Report
from include.outbox import Outbox
from include.project import Project, load_all
from include.real_world import releases
from include.releases import ReleaseError
from include.s3 import StorageError
from include.settings import Settings, SettingsError, get_settings

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
LOOK_SECONDS = 10.0
STATE_FILE = "watchdog.json"
# Touched at every turn; the health check looks at its age.
ALIVE_FILE = "alive"


class State(BaseModel):
    """What the watchdog keeps in its file. `taken` are the reports taken in last, whose files may still be there."""

    model_config = ConfigDict(frozen=True)

    incidents: Incidents = Incidents()
    outbox: Outbox = Outbox()
    taken: frozenset[str] = frozenset()


@dataclass
class Watchdog:
    """The watchdog, with its world.

    `look` sees Airflow, `due` says when it has to look next at the latest, `serves` says what a project serves.
    """

    directory: Path
    channels: Mapping[str, Channel]
    projects: Callable[[], Mapping[str, Project]]
    look: Callable[[Mapping[str, Project], datetime], list[Report]]
    serves: Callable[[str], str]
    due: Callable[[], datetime | None] = lambda: None
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def __post_init__(self) -> None:
        self._spool = Spool(self.directory)
        self._file = self.directory / STATE_FILE
        self.state = read_state(self._file)

    def take_in(self) -> None:
        """Take in what was reported since."""
        names = []
        for name, report in self._spool.waiting():
            if name not in self.state.taken:
                self._take(report)
            names.append(name)
        if names:
            self._save(taken=frozenset(names))
            for name in names:
                self._spool.remove(name)

    def is_due(self) -> bool:
        """Whether the moment has come that the last look has named."""
        due = self.due()
        return due is not None and self.now() >= due

    def observe(self) -> None:
        """Look at Airflow."""
        before = self.state
        for report in self.look(self.projects(), self.now()):
            self._take(report)
        if self.state != before:
            self._save()

    def deliver(self) -> None:
        """Try what is due; a channel that takes nothing is an incident of its own, told by the others."""
        left = self.state.outbox.delivered(self.channels, self.now())
        if left == self.state.outbox:
            return
        for name, waiting in left.waiting().items():
            log.error("the channel %s has not taken %d messages; tries again", name, waiting)
        self.state = self.state.model_copy(update={"outbox": left})
        self._judge_channels()
        self._save()

    def _judge_channels(self) -> None:
        waiting = self.state.outbox.waiting()
        there = self.state.incidents.find(AIRLOCK, "channel")
        if waiting and there is None:
            words = ", ".join(f"{name!r} ({count} waiting)" for name, count in waiting.items())
            next_step = "check its URL in ALERT_CHANNELS of .env, then `make up`; what waits is sent when it answers"
            why = f"these channels do not take messages: {words}"
            self._take(Report(project=AIRLOCK, kind="channel", at=self.now(), why=why, next_step=next_step))
        elif not waiting and there is not None:
            self._take(Report(project=AIRLOCK, kind="channel", at=self.now(), well=True))

    def _take(self, report: Report) -> None:
        incidents, told = self.state.incidents.take(report)
        outbox = self.state.outbox
        if told is not None:
            log.info("incident=%s %s: %s %s", told.id, told.project, told.what, "ended" if report.well else report.why)
            text = message(told, self.serves(told.project))
            outbox = outbox.add(self._routed(told), text, report.at)
        self.state = self.state.model_copy(update={"incidents": incidents, "outbox": outbox})

    def _routed(self, incident: Incident) -> tuple[str, ...]:
        """The channels of an incident: those that the project names for its severity, or all."""
        project = self.projects().get(incident.project)
        wanted = getattr(project.alerts, incident.severity) if project is not None else None
        if unknown := sorted({*(wanted or ())} - {*self.channels}):
            where, names = f"{incident.project}.yaml: alerts.{incident.severity}", ", ".join(unknown)
            log.error("%s: ALERT_CHANNELS in .env has no %s; every channel is told", where, names)
            wanted = None  # better all than nobody
        return tuple(name for name in self.channels if wanted is None or name in wanted)

    def _save(self, **changes: frozenset[str]) -> None:
        self.state = self.state.model_copy(update=changes)
        part = self._file.with_suffix(".part")
        part.write_text(self.state.model_dump_json(indent=1))
        part.replace(self._file)


def read_state(file: Path) -> State:
    """What the file holds. One that cannot be read is said and begun anew: alerts must go on."""
    try:
        return State.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return State()
    except ValidationError as error:
        log.error("%s cannot be read and is begun anew: %s", file, " ".join(str(error).split()))
        return State()


def reports_directory() -> Path:
    """Where reports and state are. Raises SettingsError where the environment does not say it."""
    directory = spool().directory
    if directory is None:
        raise SettingsError("AIRLOCK_ALERTS_DIR is not set: it names the directory of the reports")
    return directory


def serving(settings: Settings, project: str) -> str:
    """What serves, in words, as far as it can be known now."""
    if project == AIRLOCK:
        return "every project's release goes on"
    try:
        return what_serves(releases(settings), project)
    except (StorageError, ReleaseError) as error:
        return f"what served goes on; which release, cannot be read now ({error})"


def watchdog(settings: Settings) -> Watchdog:
    """The deployment's. Raises SettingsError for channels that cannot be used."""
    urls = alert_channels.parse(settings.alert_channels.get_secret_value())
    api = AirflowApi(settings.airflow_url, settings.watchdog_password.get_secret_value())
    sight = AirflowSight(api, settings.airflow_public_url)
    return Watchdog(
        directory=reports_directory(),
        channels=alert_channels.channels(urls),
        projects=lambda: load_all().usable,
        look=lambda projects, now: sight.look(dict(projects), now),
        due=lambda: sight.due,
        serves=lambda project: serving(settings, project),
    )


def main() -> int:
    """Run until SIGTERM; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stdout)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        dog = watchdog(get_settings())
    except SettingsError as error:
        log.error("%s", error)
        return 1
    log.info("channels: %s", ", ".join(dog.channels) or "none: incidents are kept and logged, and told to nobody")
    looked = 0.0
    while True:
        dog.take_in()
        if time.monotonic() - looked >= LOOK_SECONDS or dog.is_due():
            looked = time.monotonic()
            dog.observe()
        dog.deliver()
        (dog.directory / ALIVE_FILE).touch()
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
