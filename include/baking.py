"""A release on trial is watched: its errors by HAProxy's counters, its p99 by its own `/metrics`, its crashes."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from include.api_checks import CheckFailed
from include.api_containers import ContainerError, base_url
from include.bake_limits import BakeLimits
from include.haproxy_runtime import Traffic
from include.proving import NotProved, with_log
from include.reconciling import UP_SECONDS, converge, wait_until_up
from include.releases import Colour
from include.turns import Turn

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
HISTOGRAM = "airlock_predict_seconds"
# Below it, what differs is the machine's noise.
NOISE_SECONDS = 0.05

Latencies = Mapping[float, int]  # upper bound in seconds -> requests at or below it


class Figures(NamedTuple):
    """What a colour's containers did: `p99_seconds` is None where too few were timed."""

    requests: int
    failed: int
    p99_seconds: float | None

    @property
    def error_share(self) -> float:
        """Of the requests."""
        return self.failed / self.requests if self.requests else 0.0

    def __str__(self) -> str:
        p99 = "p99 not judged" if self.p99_seconds is None else f"p99 {self.p99_seconds * 1000:.0f} ms"
        return f"{self.failed} of {self.requests} requests failed, {p99}"


class _Counters(NamedTuple):
    """Latencies and restarts are by the container's number: one that is started anew begins its own anew."""

    traffic: Traffic
    latencies: Mapping[int, Latencies]
    restarts: Mapping[int, int]


def watch(turn: Turn, colour: Colour, seconds: float) -> Figures:
    """Watch the release of this colour for so long; the other colour's is what it is measured by.

    Raises NotProved with the figures as soon as it is worse than the project's limits.
    """
    limits = turn.project.bake
    try:
        old = _old(turn, colour, limits)
        before = _counters(turn, colour)
        deadline = turn.world.clock.now() + timedelta(seconds=seconds)
        while True:
            turn.wait(POLL_SECONDS)
            now = _counters(turn, colour)
            if changed := _changed_by_hand(turn, now):
                log.warning("project=%s: %s by hand, put back, and is watched anew", turn.project.name, changed)
                converge(turn)
                wait_until_up(turn, colour, UP_SECONDS, least=turn.project.replicas)
                now = _counters(turn, colour)
                deadline = turn.world.clock.now() + timedelta(seconds=seconds)
            ended = turn.world.clock.now() >= deadline
            found = _since(before, now, limits)
            if why := judge(found, old, limits, crashes=_crashes(before, now), ended=ended):
                raise NotProved(with_log(turn, colour, why))
            if ended:
                log.info("watched project=%s colour=%s for=%.0fs: %s", turn.project.name, colour, seconds, found)
                return found
    except (CheckFailed, ContainerError) as error:
        raise NotProved(with_log(turn, colour, f"the release on trial cannot be watched: {error}")) from None


def judge(new: Figures, old: Figures | None, limits: BakeLimits, *, crashes: int, ended: bool) -> str | None:
    """Why the new release is worse than the old one may be, with both figures; None: it is not."""
    beside = f"; the release that served: {old}" if old is not None else ""
    if crashes:
        return f"on trial, its containers crashed {crashes} times ({new}){beside}"
    allowed = limits.max_error_share + (old.error_share if old is not None else 0.0)
    # Before the end: what is too much even where as many as are enough to judge follow without a failure.
    if new.failed > allowed * (new.requests if ended else max(new.requests, limits.min_requests)):
        return f"on trial, {new}: more than {allowed:.2%} of the requests{beside}"
    if old is None or new.p99_seconds is None or old.p99_seconds is None:
        return None
    slowest = limits.max_p99_ratio * old.p99_seconds + NOISE_SECONDS
    if new.p99_seconds > slowest:
        return f"on trial, {new}: the limit is {slowest * 1000:.0f} ms{beside}"
    return None


def p99(latencies: Latencies) -> float:
    """The 99th percentile in seconds, interpolated in its bucket, as Prometheus' `histogram_quantile` does."""
    bounds = sorted(latencies)
    rank = 0.99 * latencies[bounds[-1]]
    lower, below = 0.0, 0
    for bound in bounds:
        if latencies[bound] >= rank:
            if math.isinf(bound):
                return lower
            return lower + (bound - lower) * (rank - below) / max(latencies[bound] - below, 1)
        lower, below = bound, latencies[bound]
    return lower


def _changed_by_hand(turn: Turn, now: _Counters) -> str | None:
    if turn.world.door.routed(turn.project.name) != turn.state.route:
        return "its route was changed"
    return "a container was removed" if len(now.restarts) < turn.project.replicas else None


def _crashes(before: _Counters, now: _Counters) -> int:
    return sum(max(count - before.restarts.get(number, 0), 0) for number, count in now.restarts.items())


def _since(before: _Counters, now: _Counters, limits: BakeLimits) -> Figures:
    # A reload of HAProxy begins its counters anew.
    base = before.traffic if now.traffic.requests >= before.traffic.requests else Traffic(0, 0)
    traffic = Traffic(now.traffic.requests - base.requests, now.traffic.failed - base.failed)
    grown = [_grown(before.latencies.get(number, {}), found) for number, found in now.latencies.items()]
    return _figures(traffic, grown, limits)


def _grown(before: Latencies, now: Latencies) -> Latencies:
    base = before if _timed(now) >= _timed(before) else {}
    return {bound: count - base.get(bound, 0) for bound, count in now.items()}


def _figures(traffic: Traffic, of_containers: Iterable[Latencies], limits: BakeLimits) -> Figures:
    latencies: Counter[float] = Counter()
    for found in of_containers:
        latencies.update(found)
    return Figures(*traffic, p99(latencies) if _timed(latencies) >= limits.min_requests else None)


def _timed(latencies: Latencies) -> int:
    return max(latencies.values(), default=0)


def _old(turn: Turn, colour: Colour, limits: BakeLimits) -> Figures | None:
    """What the release that stands by did in all its time, or else in its own trial; None: there is none."""
    serving = turn.state.serving
    if serving is None or serving.colour == colour:
        return None
    try:
        counters = _counters(turn, serving.colour)
    except CheckFailed as error:
        log.warning("the release that served cannot be asked, its own trial counts: %s", error)
        return Figures(0, 0, serving.p99_seconds)
    found = _figures(counters.traffic, counters.latencies.values(), limits)
    # Its containers may have been started anew, and have timed too few requests since.
    return found if found.p99_seconds is not None else found._replace(p99_seconds=serving.p99_seconds)


def _counters(turn: Turn, colour: Colour) -> _Counters:
    world, name = turn.world, turn.project.name
    containers = [found for found in world.containers.of(name) if found.colour == colour]
    return _Counters(
        world.door.traffic(name, colour),
        {found.number: _latencies(turn, colour, found.number) for found in containers},
        {found.number: found.restarts for found in containers},
    )


def _latencies(turn: Turn, colour: Colour, number: int) -> dict[float, int]:
    answer = turn.world.http.get(f"{base_url(turn.project.name, colour, number)}/metrics")
    if answer.status != 200:
        raise CheckFailed(str(answer))
    try:
        families = list(text_string_to_metric_families(answer.body.decode()))
    except ValueError:
        raise CheckFailed(f"{answer}: not Prometheus' text format") from None
    return {
        float(sample.labels["le"]): int(sample.value)
        for family in families
        if family.name == HISTOGRAM
        for sample in family.samples
        if sample.name == f"{HISTOGRAM}_bucket"
    }
