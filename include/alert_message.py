"""An incident as a message: what broke and why, since when, what still serves, what to do next, where to look."""

from __future__ import annotations

from typing import NamedTuple

from include.incidents import Incident, moment


class Message(NamedTuple):
    """What a channel is given."""

    title: str
    body: str


def message(incident: Incident, serves: str) -> Message:
    """The message of an incident as it stands; `serves` says in words what serves now."""
    name = f"[airlock {incident.id}] {incident.project}"
    times = "" if incident.count == 1 else f", {incident.count} times, the last at {moment(incident.last_at)}"
    since = f"Since: {moment(incident.since)}{times}"
    if incident.closed_at is not None:
        body = [f"Recovered at {moment(incident.closed_at)}: {incident.what}.", since, f"Serving: {serves}"]
        return Message(f"{name}: recovered, {incident.what}", "\n".join(body))
    report = incident.report
    body = [
        f"{incident.what[0].upper()}{incident.what[1:]}: {report.why}",
        since,
        f"Serving: {serves}",
        f"Next: {report.next_step}",
        *([f"Link: {report.link}"] if report.link else []),
    ]
    return Message(f"{name}: {incident.what}", "\n".join(body))
