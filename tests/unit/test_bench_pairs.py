"""What `make bench-data` reports of its runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.bench.data.pairs import LEAST_SECONDS, Client, Measured, Pair, duel, summary
from tests.bench.data.process import measure
from tests.bench.data.report import Duel
from tests.bench.data.scale import Column, line, table


def runs(*seconds: float) -> Client:
    """A client whose runs take so long."""
    left = list(seconds)
    return lambda limit: Measured(left.pop(0), 1.0)


def test_the_ratio_is_the_median_of_the_pairs_ratios_not_the_ratio_of_the_medians() -> None:
    # The machine gets slower all the time, and one run of the rival is held up: each other pair still says two.
    found = summary(duel(runs(1, 2, 3, 4, 5, 6, 7), runs(2, 4, 6, 40, 10, 12, 14)))
    assert (found.ratio, found.least, found.most, found.pairs) == (2, 2, 10, 7)
    assert (found.ours_seconds, found.theirs_seconds) == (4, 10)


def test_three_pairs_are_enough_only_where_every_ratio_is_over_five() -> None:
    assert len(duel(runs(1, 1, 1), runs(6, 5.1, 9))) == 3
    assert len(duel(runs(*[1.0] * 7), runs(6, 5, *[9.0] * 5))) == 7


def test_runs_are_interleaved_and_a_rival_is_stopped_after_twenty_times_our_seconds() -> None:
    order: list[tuple[str, float | None]] = []

    def client(name: str, seconds: float) -> Client:
        def run(limit: float | None) -> Measured:
            order.append((name, limit))
            return Measured(seconds, 0)

        return run

    duel(client("ours", 4.0), client("theirs", 80.0))
    assert order == [("ours", None), ("theirs", 80.0)] * 3
    order.clear()
    duel(client("ours", 0.1), client("theirs", 2.0))
    assert order[1] == ("theirs", LEAST_SECONDS)


def test_a_stopped_rival_is_reported_as_at_least_its_ratio() -> None:
    pairs = [Pair(Measured(1, 1), Measured(20, 5, stopped=True))] * 3
    assert Duel("a", "b", 10, pairs).cells()[3] == "**≥ 20.00** (20.00–20.00; 3)"


def test_a_goal_of_at_most_so_much_longer_than_less_work_is_told_in_its_own_direction() -> None:
    pairs = [Pair(Measured(ours, 1), Measured(1, 1)) for ours in (1.2, 1.4, 1.8)]
    line = Duel("snapshot", "listing", 1.5, pairs, inverted=True)
    assert line.met
    assert line.cells()[2:4] == ["≤ 1.5× its time", "**1.40** (1.20–1.80; 3)"]
    assert not Duel("snapshot", "listing", 1.3, pairs, inverted=True).met


def test_the_cpu_of_a_clients_children_counts(tmp_path: Path) -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}], check=True)"
    measured, _ = measure([sys.executable, "-c", script], {}, tmp_path)
    assert measured.cpu_seconds > 0.3
    assert not measured.stopped


def test_a_client_that_fails_is_an_error_with_what_it_said_and_one_past_its_limit_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no such bucket"):
        measure([sys.executable, "-c", "raise SystemExit('no such bucket')"], {}, tmp_path)
    endless = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    measured, _ = measure(
        [sys.executable, "-c", f"import threading; threading.Event().wait(); {endless}"], {}, tmp_path, 0.2
    )
    assert measured.stopped


def test_the_line_through_measured_sizes_gives_back_its_start_and_slope() -> None:
    at_zero, slope = line([(10_000, 0.5 + 0.02), (30_000, 0.5 + 0.06), (100_000, 0.5 + 0.2)])
    assert at_zero == pytest.approx(0.5)
    assert slope == pytest.approx(2e-6)


def test_the_reckoning_is_the_larger_of_the_real_line_and_the_synthetic_share_and_none_without_growth() -> None:
    columns = [
        Column(1_000, values={"copying": 2.0, "comparing": 0.1, "flat": 1.0, "total bytes": 2**20}),
        Column(2_000, values={"copying": 3.0, "comparing": 0.1, "flat": 1.0, "total bytes": 2**21}),
        Column(1_000_000, synthetic=True, values={"copying": 0.1, "comparing": 3.0}),
    ]
    assert table(columns).splitlines()[2:] == [
        "| copying | 2.00 s | 3.00 s | 0.10 s | 1000.0 µs | 2.8 h | 27.8 h |",
        "| comparing | 0.10 s | 0.10 s | 3.00 s | – | 30.00 s | 5 min |",
        "| flat | 1.00 s | 1.00 s | – | – | – | – |",
        "| total bytes | 1.0 MiB | 2.0 MiB | – | 1049 B | 9.8 GiB | 97.7 GiB |",
    ]
