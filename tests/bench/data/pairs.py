"""Interleaved pairs of runs (ours, theirs, ours, theirs …), and what is reported of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

PAIRS = 7
PAIRS_OF_A_LARGE_RATIO = 3
LARGE_RATIO = 5.0
PATIENCE = 20.0
"""A rival is stopped after this many times our own seconds: its ratio is then at least this, and said to be so."""
LEAST_SECONDS = 30.0
"""A rival always has as long as this."""


@dataclass(frozen=True)
class Measured:
    """One run of one client, from the start of its process to its end."""

    seconds: float
    cpu_seconds: float
    """Of the process and all that it waited for, user and system."""
    stopped: bool = False
    """Whether it was stopped before its end, so that it would have taken longer."""


@dataclass(frozen=True)
class Pair:
    """Our run and the rival's run after it."""

    ours: Measured
    theirs: Measured

    @property
    def ratio(self) -> float:
        """How many times as long theirs took."""
        return self.theirs.seconds / self.ours.seconds


@dataclass(frozen=True)
class Summary:
    """The pairs in one line."""

    pairs: int
    ratio: float
    least: float
    most: float
    at_least: bool
    """Whether a rival was stopped, so that the ratio is at least this."""
    ours_seconds: float
    theirs_seconds: float
    ours_cpu_seconds: float
    theirs_cpu_seconds: float


Client = Callable[[float | None], Measured]
"""One cold run, with the seconds after which it is stopped."""


def duel(ours: Client, theirs: Client) -> list[Pair]:
    """Seven pairs, or three where each of the first three has a ratio over five."""
    pairs: list[Pair] = []
    while not enough([pair.ratio for pair in pairs]):
        own = ours(None)
        pairs.append(Pair(own, theirs(max(LEAST_SECONDS, own.seconds * PATIENCE))))
    return pairs


def enough(ratios: list[float]) -> bool:
    """Whether these are enough pairs."""
    if len(ratios) < PAIRS_OF_A_LARGE_RATIO:
        return False
    return len(ratios) >= PAIRS or min(ratios) > LARGE_RATIO


def summary(pairs: list[Pair]) -> Summary:
    """The median of the ratios of each pair: not the ratio of the medians, since the machine's pace drifts."""
    ratios = [pair.ratio for pair in pairs]
    return Summary(
        pairs=len(pairs),
        ratio=statistics.median(ratios),
        least=min(ratios),
        most=max(ratios),
        at_least=any(pair.theirs.stopped for pair in pairs),
        ours_seconds=statistics.median(pair.ours.seconds for pair in pairs),
        theirs_seconds=statistics.median(pair.theirs.seconds for pair in pairs),
        ours_cpu_seconds=statistics.median(pair.ours.cpu_seconds for pair in pairs),
        theirs_cpu_seconds=statistics.median(pair.theirs.cpu_seconds for pair in pairs),
    )
