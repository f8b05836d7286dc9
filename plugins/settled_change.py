"""When a bucket has changed and come to rest: the decision of the watch, free of Airflow and S3."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from include.listing import Listing
from include.watch_orders import Order, Wanted

# Listing may cost at most a twentieth of the time: after one, its duration times this is the shortest pause.
_PAUSE_PER_LISTING = 19
# That holds from the second page of a listing on; one page is one request, slow only when S3 is. The quickest of the
# last few listings counts, and none before there are so many, so that one hiccup does not blind the watch for minutes.
_ONE_PAGE = 1000
_LISTINGS_REMEMBERED = 3
_LONGEST_ERROR_PAUSE_SECONDS = 10.0
# A listing whose snapshot failed is tried again after this long, so that a broken snapshot does not loop hot.
# A change of the bucket is tried after the usual settling.
RETRY_FAILED_SECONDS = 600.0
# The errors of an outage that are logged, by their number: the first, and a few more as it goes on.
_LOGGED_ERRORS = frozenset({1, 10, 100, 1000})

_ORDERED = {Wanted.NOW: "takes a snapshot, asked for", Wanted.HOLD: "held"}


@dataclass(frozen=True)
class Pace:
    """How often to look and how long the bucket must have been quiet, both in seconds."""

    settle_seconds: float
    poll_seconds: float


@dataclass(frozen=True)
class Step:
    """What one look at the bucket leads to.

    `fire` is the listing to take a snapshot of, if the time has come. `progress` says what is waited for;
    `news` whether that is worth a log line, as against the same wait a little later.
    """

    fire: Listing | None
    pause_seconds: float
    progress: str
    news: bool


class SettledChange:
    """Follows a bucket's listings and says when one differs from the baseline and has settled.

    Nothing is counted and no event is needed: each look compares the state, so that a restart, an outage
    or a lost look only lets the bucket settle anew.
    """

    def __init__(self, *, baseline: str | None, failed: str | None) -> None:
        """`baseline`: digest of the newest snapshot that has a run; `failed`: digest whose snapshot failed last."""
        self._baseline = baseline
        self._failed = failed
        self._seen: Listing | None = None
        self._since = 0.0
        self._errors = 0
        self._said = ""
        self._durations: deque[float] = deque(maxlen=_LISTINGS_REMEMBERED)

    def differs(self, listing: Listing) -> bool:
        """Whether there is something to take a snapshot of, now or later."""
        return self._nothing_to_do(listing) is None

    def look(
        self, listing: Listing, *, began: float, ended: float, clock: datetime, pace: Pace, order: Order | None = None
    ) -> Step:
        """Take in a listing made between the monotonic times `began` and `ended`, the wall clock now being `clock`.

        `order` is what a person has told the watch.
        """
        if self._seen is None or listing.digest != self._seen.digest:
            self._since = ended
        self._seen = listing
        back = f"S3 is back after {_attempts(self._errors)}; " if self._errors else ""
        self._errors = 0

        shortest = self._shortest_pause(listing, ended - began)
        if (idle := self._nothing_to_do(listing)) is not None:
            return self._step(None, max(shortest, pace.poll_seconds), back + idle, says=idle)

        if order is not None and order.counts(clock):
            text = f"{_files(listing.count)}, {_ORDERED[order.wanted]} {order.in_words}"
            if order.wanted == Wanted.NOW:
                return self._step(listing, 0.0, back + text, says=text)
            return self._step(None, max(shortest, pace.poll_seconds), back + text, says=text)

        quiet = self._quiet_seconds(listing, pace)
        # Nothing may have changed until the listing began; what happened while it ran, it may have missed.
        remaining = self._since + quiet - began
        if remaining <= 0:
            text = f"{_files(listing.count)}, quiet for {_seconds(began - self._since)}: takes a snapshot"
            return self._step(listing, 0.0, back + text, says=text)
        starts = (clock + timedelta(seconds=self._since + quiet - ended)).astimezone(UTC)
        at = f"starts at {starts:%H:%M:%S} UTC unless it changes"
        if listing.digest == self._failed:
            at = f"the last snapshot of this state failed, the next one {at}"
        text = f"{_files(listing.count)}, last change {_seconds(ended - self._since)} ago, {at}"
        return self._step(
            None,
            max(shortest, min(pace.poll_seconds, remaining)),
            back + text,
            says=f"settling {listing.digest} {self._since} {quiet}",
        )

    def failed_look(self, cause: str, *, pace: Pace) -> Step:
        """Take in that the bucket could not be listed; what it did meanwhile is unknown, so it settles anew."""
        self._errors += 1
        self._seen = None
        self._said = ""
        pause = min(_LONGEST_ERROR_PAUSE_SECONDS, pace.poll_seconds * 2 ** min(self._errors, 6))
        text = f"{cause}; {_attempts(self._errors)}, tries again every {_seconds(pause)}"
        return Step(None, pause, text, news=self._errors in _LOGGED_ERRORS)

    def _nothing_to_do(self, listing: Listing) -> str | None:
        if listing.count == 0:
            return "the bucket is empty: waits for pictures"
        if listing.digest == self._baseline:
            return f"{_files(listing.count)}, unchanged since the last snapshot: waits for a change"
        return None

    def _shortest_pause(self, listing: Listing, seconds: float) -> float:
        self._durations.append(seconds)
        if listing.count <= _ONE_PAGE or len(self._durations) < _LISTINGS_REMEMBERED:
            return 0.0
        return _PAUSE_PER_LISTING * min(self._durations)

    def _quiet_seconds(self, listing: Listing, pace: Pace) -> float:
        if listing.digest == self._failed:
            return max(pace.settle_seconds, RETRY_FAILED_SECONDS)
        return pace.settle_seconds

    def _step(self, fire: Listing | None, pause_seconds: float, progress: str, *, says: str) -> Step:
        news = says != self._said
        self._said = says
        return Step(fire, pause_seconds, progress, news)


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count:,} files"


def _attempts(count: int) -> str:
    return "1 failed attempt" if count == 1 else f"{count:,} failed attempts"


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s"
