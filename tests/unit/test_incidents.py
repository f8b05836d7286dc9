"""One incident for each project and kind of trouble: opened, counted up, closed once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from include.alert_message import message
from include.incidents import AGAIN_AFTER, Incident, Incidents, Kind, Report

BEGAN = datetime(2026, 11, 29, 2, 0, tzinfo=UTC)
WHY = "train failed: airlock-digits-train-1 was killed at its memory limit of 4 GiB"


def report(minutes: float, kind: Kind = "retrain", *, well: bool = False, project: str = "digits") -> Report:
    at = BEGAN + timedelta(minutes=minutes)
    return Report(
        project=project, kind=kind, at=at, well=well, why=WHY, next_step="raise memory_bytes", link="http://a"
    )


def told(*reports: Report) -> tuple[Incidents, list[Incident]]:
    """What is kept after these reports, and the incidents that a person was told of."""
    incidents, said = Incidents(), []
    for one in reports:
        incidents, incident = incidents.take(one)
        said += [incident] if incident else []
    return incidents, said


def test_trouble_is_told_once_counted_up_and_its_end_told_with_the_same_id() -> None:
    incidents, said = told(report(0), report(1), report(2), report(3, well=True))
    opened, closed = said
    assert opened.id == closed.id
    assert (opened.count, closed.count) == (1, 3)
    assert closed.closed_at == BEGAN + timedelta(minutes=3)
    assert incidents.open == ()


def test_trouble_that_goes_on_is_told_again_after_an_hour() -> None:
    minutes = AGAIN_AFTER.total_seconds() / 60
    _, said = told(report(0), report(minutes - 1), report(minutes), report(minutes + 1))
    assert [incident.count for incident in said] == [1, 3]


def test_a_second_trouble_has_an_incident_of_its_own() -> None:
    incidents, said = told(report(0), report(0, "bucket"), report(0, project="cats"), report(1, well=True))
    assert len({incident.id for incident in said}) == 3
    assert {(one.project, one.kind) for one in incidents.open} == {("digits", "bucket"), ("cats", "retrain")}


def test_that_all_is_well_is_no_news() -> None:
    assert told(report(0, well=True), report(1, well=True)) == (Incidents(), [])


def test_a_closed_incident_is_kept_for_days_and_not_for_ever() -> None:
    incidents, _ = told(report(0), report(1, well=True), report(2, "bucket"))
    assert len(incidents.incidents) == 2
    incidents, _ = incidents.take(report(60 * 24 * 8, "watch"))
    assert [one.kind for one in incidents.incidents] == ["bucket", "watch"]


@given(st.lists(st.tuples(st.sampled_from(["digits", "cats"]), st.sampled_from(["retrain", "late"]), st.booleans())))
def test_no_order_of_reports_opens_two_of_a_kind_or_closes_one_twice(rows: list[tuple[str, Any, bool]]) -> None:
    reports = [report(n, kind, well=well, project=project) for n, (project, kind, well) in enumerate(rows)]
    incidents, said = told(*reports)
    keys = [(one.project, one.kind) for one in incidents.open]
    assert len(keys) == len(set(keys))
    closed = [one.id for one in said if one.closed_at]
    assert len(closed) == len(set(closed))
    assert {one.id for one in said} == {one.id for one in incidents.incidents}


def test_a_message_says_in_five_lines_what_since_when_what_serves_what_next_and_where() -> None:
    _, (opened,) = told(report(0))
    said = message(opened, "release r-v3 of digits serves (model version 3, run abc)")
    assert said.title == f"[airlock {opened.id}] digits: a retrain failed"
    assert said.body.splitlines() == [
        f"A retrain failed: {WHY}",
        "Since: 2026-11-29 02:00:00 UTC",
        "Serving: release r-v3 of digits serves (model version 3, run abc)",
        "Next: raise memory_bytes",
        "Link: http://a",
    ]


def test_the_message_of_the_end_says_how_long_and_how_often() -> None:
    _, said = told(report(0), report(1), report(30, well=True))
    assert message(said[-1], "v3").body.splitlines() == [
        "Recovered at 2026-11-29 02:30:00 UTC: a retrain failed.",
        "Since: 2026-11-29 02:00:00 UTC, 2 times, the last at 2026-11-29 02:01:00 UTC",
        "Serving: v3",
    ]
