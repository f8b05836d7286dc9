"""The watch's decision: when a bucket has changed and settled."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from settled_change import RETRY_FAILED_SECONDS, Pace, SettledChange, Step
from trainer import listing as trainer_listing

from include.listing import Listing, listing_of

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
PACE = Pace(settle_seconds=60, poll_seconds=15)

ONE = ("cats/1.png", "etag-1", 10)
TWO = ("cats/2.png", "etag-2", 20)


class Bucket:
    """A bucket that is looked at by a clock that only moves when told."""

    def __init__(self, *objects: tuple[str, str, int], baseline: str | None = None, failed: str | None = None) -> None:
        self.objects = list(objects)
        self.watch = SettledChange(baseline=baseline, failed=failed)
        self.now = 1000.0
        self.steps: list[Step] = []

    def look(self, *, cost: float = 0.0, pace: Pace = PACE) -> Step:
        began = self.now
        self.now += cost
        clock = NOON + timedelta(seconds=self.now - 1000)
        step = self.watch.look(listing_of(self.objects), began=began, ended=self.now, clock=clock, pace=pace)
        self.steps.append(step)
        return step

    def follow(self, seconds: float, *, cost: float = 0.0, pace: Pace = PACE) -> Listing | None:
        """Look as the trigger does, for so many seconds; what fired, if anything."""
        until = self.now + seconds
        while self.now <= until:
            step = self.look(cost=cost, pace=pace)
            if step.fire:
                return step.fire
            self.now += step.pause_seconds
        return None


def settled(*objects: tuple[str, str, int]) -> str:
    return listing_of(objects).digest


def test_a_changed_bucket_fires_once_it_has_been_quiet_for_the_settle_time() -> None:
    bucket = Bucket(ONE)
    assert bucket.follow(59) is None
    assert bucket.follow(2) == Listing(settled(ONE), 1)
    assert bucket.now == pytest.approx(1060)


@pytest.mark.parametrize(
    ("before", "after"),
    [([ONE], [ONE, TWO]), ([ONE, TWO], [ONE]), ([ONE], [("cats/1.png", "etag-new", 10)])],
    ids=["added", "deleted", "overwritten"],
)
def test_adds_deletes_and_overwrites_are_all_changes(
    before: list[tuple[str, str, int]], after: list[tuple[str, str, int]]
) -> None:
    bucket = Bucket(*before, baseline=settled(*before))
    assert bucket.follow(600) is None
    bucket.objects = after
    assert bucket.follow(90) == listing_of(after)


def test_a_second_change_within_the_settle_time_starts_it_anew() -> None:
    bucket = Bucket(ONE)
    bucket.follow(45)
    bucket.objects.append(TWO)
    assert bucket.follow(59) is None
    assert bucket.follow(20) == Listing(settled(ONE, TWO), 2)


def test_a_bucket_that_changes_and_changes_back_starts_nothing() -> None:
    bucket = Bucket(ONE, baseline=settled(ONE))
    bucket.objects.append(TWO)
    bucket.follow(30)
    bucket.objects.remove(TWO)
    assert bucket.follow(600) is None


def test_an_empty_bucket_never_fires_even_when_it_was_emptied() -> None:
    assert Bucket().follow(600) is None
    assert Bucket(baseline=settled(ONE)).follow(600) is None


def test_a_single_file_fires_since_the_trainer_says_what_is_wrong_with_it() -> None:
    assert Bucket(ONE).follow(90) is not None


def test_after_an_outage_the_bucket_settles_anew() -> None:
    bucket = Bucket(ONE)
    bucket.follow(45)
    bucket.watch.failed_look("S3 is away", pace=PACE)
    assert bucket.follow(59) is None
    assert bucket.follow(5) is not None


def test_attempts_during_an_outage_slow_down_to_every_ten_seconds_and_are_not_all_logged() -> None:
    watch = SettledChange(baseline=None, failed=None)
    steps = [watch.failed_look("S3 is away", pace=Pace(60, 1)) for _ in range(50)]
    assert [step.pause_seconds for step in steps[:5]] == [2, 4, 8, 10, 10]
    assert sum(step.news for step in steps) == 2
    assert "S3 is away" in steps[-1].progress


def test_the_end_of_an_outage_is_said() -> None:
    bucket = Bucket(ONE)
    bucket.watch.failed_look("S3 is away", pace=PACE)
    step = bucket.look()
    assert step.news
    assert "S3 is back after 1 failed attempt" in step.progress


def test_a_state_whose_snapshot_failed_is_tried_again_only_after_a_while() -> None:
    bucket = Bucket(ONE, failed=settled(ONE))
    assert bucket.follow(RETRY_FAILED_SECONDS - 1) is None
    assert "the last snapshot of this state failed" in bucket.steps[-1].progress
    assert bucket.follow(2) is not None


def test_a_change_after_a_failed_snapshot_is_tried_after_the_usual_settling() -> None:
    bucket = Bucket(ONE, TWO, failed=settled(ONE))
    assert bucket.follow(61) is not None


def test_listing_a_huge_bucket_costs_at_most_a_twentieth_of_the_time() -> None:
    rows = [(f"cats/{i}.png", "etag", 1) for i in range(1001)]
    bucket = Bucket(*rows, baseline=settled(*rows))
    pace = Pace(60, 1)
    bucket.look(cost=10.0, pace=pace)
    bucket.look(cost=10.0, pace=pace)
    first, began = len(bucket.steps), bucket.now
    bucket.follow(3600, cost=10.0, pace=pace)
    listing_seconds = 10.0 * (len(bucket.steps) - first)
    assert listing_seconds / (bucket.now - began) <= 1 / 20


def test_one_slow_answer_of_s3_does_not_slow_the_watch_of_a_small_bucket() -> None:
    bucket = Bucket(ONE, baseline=settled(ONE))
    assert bucket.look(cost=25.0).pause_seconds == PACE.poll_seconds


@pytest.mark.parametrize("slow", [0, 1, 2, 3], ids=["first", "second", "third", "fourth"])
def test_one_slow_listing_does_not_slow_the_watch_of_a_large_bucket(slow: int) -> None:
    rows = [(f"cats/{i}.png", "etag", 1) for i in range(1001)]
    bucket = Bucket(*rows, baseline=settled(*rows))
    looks = [bucket.look(cost=25.0 if number == slow else 0.5) for number in range(6)]
    assert [step.pause_seconds for step in looks] == [PACE.poll_seconds] * 6


def test_what_changes_while_a_long_listing_runs_is_not_taken_for_quiet() -> None:
    bucket = Bucket(ONE)
    pace = Pace(settle_seconds=5, poll_seconds=1)
    assert bucket.look(cost=30, pace=pace).fire is None


def test_a_changed_settle_time_holds_for_the_wait_that_goes_on() -> None:
    bucket = Bucket(ONE)
    bucket.follow(30)
    assert bucket.look(pace=Pace(settle_seconds=20, poll_seconds=15)).fire is not None


def test_it_says_how_many_files_when_they_changed_and_when_it_starts() -> None:
    bucket = Bucket(*((f"cats/{i}.png", "etag", 1) for i in range(1240)))
    bucket.look()
    bucket.now += 40
    assert bucket.look().progress == "1,240 files, last change 40 s ago, starts at 12:01:00 UTC unless it changes"


def test_the_log_gets_a_line_for_each_new_state_not_for_each_look() -> None:
    bucket = Bucket(ONE, baseline=settled(ONE))
    bucket.follow(600)
    assert [step.news for step in bucket.steps].count(True) == 1
    bucket.objects.append(TWO)
    bucket.follow(90)
    assert [step.news for step in bucket.steps].count(True) == 3  # the change, the snapshot


def test_sensor_and_trainer_compute_the_same_listing_digest() -> None:
    rows = [
        ("cats-b.png", "aa", 3),
        ("cats/1.png", "bb", 2),
        ("cats/ü.png", "dd", 7),
        ("cats", "d41d8cd98f00b204e9800998ecf8427e", 0),  # a folder marker, as obstore lists it
        ("cats/𝄞.png", "ee", 1),
        ("cats/\uffee.png", "ff", 1),
    ]
    expected = trainer_listing.digest(trainer_listing.Row(*row) for row in rows)
    quoted = [(key, f'"{etag}"', size) for key, etag, size in rows]
    assert listing_of(quoted).digest == expected
    assert listing_of(reversed(quoted)).digest == expected
    assert listing_of(quoted).count == 5
