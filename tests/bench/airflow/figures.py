"""Figures in rows of a table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def row(what: str, values: Sequence[float], goal: str = "", digits: int = 1) -> None:
    """Prints median, 95th percentile and most of these seconds."""
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * len(ordered) + 0.5) - 1)]
    figures = " | ".join(f"{value:.{digits}f}" for value in (statistics.median(ordered), p95, ordered[-1]))
    print(f"| {what} | {len(ordered)} | {figures} | {goal} |", flush=True)


def heading() -> None:
    """Prints the table's head."""
    print("| seconds | times | median | p95 | most | goal |\n|---|---|---|---|---|---|", flush=True)
