"""`python -m include.alert_status`: the open incidents, and what waits for a channel."""

from __future__ import annotations

import sys

from include.incidents import moment
from include.settings import SettingsError
from include.watchdog import STATE_FILE, State, read_state, reports_directory


def status(state: State) -> str:
    """For a person at a terminal."""
    lines = [
        f"{one.id}  {one.project}: {one.what}, since {moment(one.since)}, {one.count} times\n"
        f"    {one.report.why}\n    next: {one.report.next_step}"
        for one in state.incidents.open
    ] or ["no open incident"]
    waiting = state.outbox.waiting().items()
    lines += [f"channel {name!r} does not take messages: {count} wait" for name, count in waiting]
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        print(status(read_state(reports_directory() / STATE_FILE)))
    except SettingsError as error:
        sys.exit(str(error))
