"""Which channels an incident goes to."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from include.alert_message import Message
from include.incidents import Kind, Report
from include.project import AlertRouting, Project
from include.watchdog import Watchdog

NOW = datetime(2026, 11, 30, 2, 0, tzinfo=UTC)


class Channel:
    """Takes every message."""

    def __init__(self) -> None:
        self.titles: list[str] = []

    def send(self, message: Message) -> bool:
        self.titles.append(message.title)
        return True


@pytest.mark.parametrize(
    ("kind", "routing", "told"),
    [
        ("retrain", AlertRouting(), {"ops", "mail"}),
        ("retrain", AlertRouting(error=("ops",)), {"ops"}),
        ("late", AlertRouting(error=("ops",)), {"ops", "mail"}),
        ("late", AlertRouting(warning=("mail",)), {"mail"}),
        ("late", AlertRouting(warning=()), set()),
    ],
)
def test_a_project_says_which_channels_are_told_of_its_errors_and_of_its_warnings(
    tmp_path: Path, kind: Kind, routing: AlertRouting, told: set[str]
) -> None:
    assert told_of(tmp_path, kind, routing) == told


def test_a_channel_that_is_not_there_is_named_and_all_others_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert told_of(tmp_path, "retrain", AlertRouting(error=("opps", "mail"))) == {"ops", "mail"}
    assert "digits.yaml: alerts.error: ALERT_CHANNELS in .env has no opps; every channel is told" in caplog.text


def told_of(directory: Path, kind: Kind, routing: AlertRouting) -> set[str]:
    """The channels that get the message of one incident of the project `digits`."""
    channels = {"ops": Channel(), "mail": Channel()}
    report = Report(project="digits", kind=kind, at=NOW, why="it is so", next_step="look")
    dog = Watchdog(
        directory=directory,
        channels=channels,
        projects=lambda: {"digits": Project(name="digits", bucket="digits-train", alerts=routing)},
        look=lambda *_: [report],
        serves=lambda _: "v3",
        now=lambda: NOW,
    )
    dog.observe()
    dog.deliver()
    return {name for name, channel in channels.items() if channel.titles}
