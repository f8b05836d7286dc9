"""One schedule for automatic, manual and backfill runs of a project's snapshots."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import snapshot_timetable
from airflow.exceptions import InvalidPartitionKeyError
from airflow.models.backfill import InvalidBackfillDate
from hypothesis import given
from hypothesis import strategies as st
from snapshot_timetable import SnapshotMapper, SnapshotTimetable

from dags.assets import snapshots_of
from include.s3 import StorageError
from include.snapshots import UnknownSnapshot, choose, taken_at

SEPTEMBER = ["20260903T101500123Z-aaaaaaaa", "20260903T101500124Z-bbbbbbbb", "20260930T235959999Z-cccccccc"]
OCTOBER = "20261001T000000000Z-dddddddd"


@pytest.fixture
def timetable(monkeypatch: pytest.MonkeyPatch) -> SnapshotTimetable:
    monkeypatch.setattr(snapshot_timetable, "get_settings", lambda: None)
    monkeypatch.setattr(snapshot_timetable, "snapshot_ids", lambda _, project: [*SEPTEMBER, OCTOBER])
    return SnapshotTimetable(project="digits", assets=snapshots_of("digits"))


def test_a_backfill_has_one_run_for_each_snapshot_of_its_range(timetable: SnapshotTimetable) -> None:
    runs = list(
        timetable.iter_partition_dagrun_infos(
            earliest=datetime(2026, 9, 1, tzinfo=UTC), latest=datetime(2026, 9, 30, 23, 59, 59, 999_000, tzinfo=UTC)
        )
    )
    assert [run.partition_key for run in runs] == SEPTEMBER
    assert [run.partition_date for run in runs] == [taken_at(key) for key in SEPTEMBER]
    assert all(run.logical_date is None for run in runs)


def test_a_backfill_over_a_range_without_a_snapshot_has_no_run(timetable: SnapshotTimetable) -> None:
    january = {"earliest": datetime(2026, 1, 1, tzinfo=UTC), "latest": datetime(2026, 1, 31, tzinfo=UTC)}
    assert list(timetable.iter_partition_dagrun_infos(**january)) == []


def test_the_run_of_an_asset_a_backfill_and_a_person_agree_on_the_date_of_a_snapshot(
    timetable: SnapshotTimetable,
) -> None:
    key = SEPTEMBER[0]
    asset = snapshots_of("digits")
    by_asset = timetable.get_partition_mapper(name=asset.name, uri=asset.uri)
    assert isinstance(by_asset, SnapshotMapper)
    assert by_asset.to_downstream(key) == key
    assert by_asset.to_partition_date(key) == timetable.resolve_partition_date(key) == taken_at(key)


def test_two_snapshots_of_one_second_have_two_dates() -> None:
    assert taken_at(SEPTEMBER[0]) != taken_at(SEPTEMBER[1])


@pytest.mark.parametrize("key", ["nonsense", "20261399T101500123Z-aaaaaaaa", "20260903T101500Z-aaaaaaaa"])
def test_a_partition_key_that_is_no_snapshot_id_is_refused_in_words(timetable: SnapshotTimetable, key: str) -> None:
    with pytest.raises(InvalidPartitionKeyError, match="is not a snapshot id; one looks like"):
        timetable.resolve_partition_date(key)


def test_a_run_with_a_logical_date_can_be_marked_whatever_snapshots_there_are(
    timetable: SnapshotTimetable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> list[str]:
        raise StorageError("S3 is away")

    monkeypatch.setattr(snapshot_timetable, "snapshot_ids", away)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    assert list(timetable.iter_partition_dagrun_infos(earliest=at, latest=at)) == []


def test_a_run_for_a_snapshot_that_is_not_there_is_refused_with_the_nearest(timetable: SnapshotTimetable) -> None:
    with pytest.raises(InvalidPartitionKeyError, match=f"has no snapshot .*; the nearest are .*{SEPTEMBER[0]}"):
        timetable.resolve_partition_date(SEPTEMBER[0].replace("a", "e"))


@pytest.fixture
def s3_away(timetable: SnapshotTimetable, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> list[str]:
        raise StorageError("S3 is away")

    monkeypatch.setattr(snapshot_timetable, "snapshot_ids", away)


@pytest.mark.usefixtures("s3_away")
def test_without_s3_a_backfill_is_refused_in_words(timetable: SnapshotTimetable) -> None:
    with pytest.raises(InvalidBackfillDate, match=r"^the snapshots of digits cannot be listed: S3 is away$"):
        list(timetable.iter_partition_dagrun_infos(earliest=taken_at(SEPTEMBER[0]), latest=taken_at(OCTOBER)))


@pytest.mark.usefixtures("s3_away")
def test_without_s3_a_snapshot_is_taken_unseen_for_the_run_to_check(timetable: SnapshotTimetable) -> None:
    assert timetable.resolve_partition_date(SEPTEMBER[0]) == taken_at(SEPTEMBER[0])


def test_the_timetable_survives_the_way_through_airflows_database(timetable: SnapshotTimetable) -> None:
    again = SnapshotTimetable.deserialize(timetable.serialize())
    assert again.project == "digits"
    assert again.summary == "Each snapshot of digits"
    assert isinstance(again.default_partition_mapper, SnapshotMapper)
    assert again.periodic
    assert again.partitioned


@given(st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1)))
def test_an_id_says_when_its_snapshot_was_taken_to_the_millisecond(at: datetime) -> None:
    at = at.replace(microsecond=at.microsecond // 1000 * 1000)
    assert taken_at(f"{at:%Y%m%dT%H%M%S}{at.microsecond // 1000:03d}Z-0123abcd") == at.replace(tzinfo=UTC)


def test_without_a_wanted_snapshot_the_newest_is_chosen() -> None:
    assert choose(SEPTEMBER, None, "digits") == SEPTEMBER[-1]
    assert choose(SEPTEMBER, SEPTEMBER[0], "digits") == SEPTEMBER[0]


def test_an_unknown_snapshot_is_refused_naming_the_nearest() -> None:
    with pytest.raises(UnknownSnapshot, match=SEPTEMBER[0]):
        choose([*SEPTEMBER, OCTOBER], SEPTEMBER[0].replace("a", "e"), "digits")


def test_a_project_without_snapshots_says_what_to_do() -> None:
    with pytest.raises(UnknownSnapshot, match="put pictures into its bucket"):
        choose([], None, "digits")
