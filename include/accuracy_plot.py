"""Accuracy over time as an SVG picture: one dot for each release, in the colours of the page around it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 480, 120
LEFT, RIGHT, TOP, BOTTOM = 54, 12, 10, 22
# Figures that hardly differ shall not look like mountains.
LEAST_RANGE = 0.02


class Point(NamedTuple):
    """A release: when it took over, its accuracy of 1, and what it is called."""

    at: datetime
    accuracy: float
    name: str


def plot(points: Sequence[Point]) -> str:
    """The SVG; points in the order of time, at least one."""
    begun, ended = points[0].at.timestamp(), points[-1].at.timestamp()
    low, high = min(point.accuracy for point in points), max(point.accuracy for point in points)
    spread = max(high - low, LEAST_RANGE)
    middle = (high + low) / 2
    top, bottom = min(middle + spread / 2, 1.0), max(middle - spread / 2, 0.0)

    def x(at: datetime) -> float:
        share = (at.timestamp() - begun) / (ended - begun) if ended > begun else 0.5
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(accuracy: float) -> float:
        return TOP + (top - accuracy) / (top - bottom) * (HEIGHT - TOP - BOTTOM)

    places = [(round(x(point.at), 1), round(y(point.accuracy), 1), point) for point in points]
    line = " ".join(f"{across},{down}" for across, down, _ in places)
    dots = "".join(
        f'<circle cx="{across}" cy="{down}" r="4"><title>{escape(_words(point))}</title></circle>'
        for across, down, point in places
    )
    values = "".join(_text(LEFT - 6, y(value) + 4, "end", f"{value:.1%}") for value in (top, bottom))
    ends = [(points[0].at, "start"), (points[-1].at, "end")] if ended > begun else [(points[0].at, "middle")]
    days = "".join(_text(x(at), HEIGHT - 4, anchor, f"{at:%Y-%m-%d}") for at, anchor in ends)
    title = f"Accuracy of {len(points)} releases, from {low:.1%} to {high:.1%}"
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">'
        f'<polyline points="{line}"/>{dots}{values}{days}</svg>'
    )


def _text(across: float, down: float, anchor: str, words: str) -> str:
    return f'<text x="{across:.1f}" y="{down:.1f}" text-anchor="{anchor}">{words}</text>'


def _words(point: Point) -> str:
    return f"{point.name}: {point.accuracy:.1%}, {point.at:%Y-%m-%d %H:%M} UTC"
