"""What the benchmark prints: lines of one Markdown table, and the same as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tests.bench.data.pairs import Pair, Summary, summary

HEADER = (
    "| what | against | goal | median ratio (range; pairs) | seconds, ours / theirs | client CPU s, ours / theirs "
    "| MB moved, ours / theirs | met |\n|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Duel:
    """A line of pairs: how many times as long the rival takes."""

    what: str
    against: str
    goal: float
    """The median has to be at least this; or at most, for a rival that does less than we do."""
    pairs: list[Pair]
    ours_bytes: int | None = None
    theirs_bytes: int | None = None
    inverted: bool = False
    """The goal is at most so many times the rival's seconds."""

    @property
    def met(self) -> bool:
        """Whether the median reaches the goal."""
        ratio = summary(self.pairs).ratio
        return 1 / ratio <= self.goal if self.inverted else ratio >= self.goal

    def cells(self) -> list[str]:
        """The line of the table."""
        found = summary(self.pairs)
        stopped = "≥ " if found.at_least else ""
        return [
            self.what,
            self.against,
            f"≤ {self.goal:g}× its time" if self.inverted else f"≥ {self.goal:g}×",
            self._ratio(found, stopped),
            f"{found.ours_seconds:.2f} / {stopped}{found.theirs_seconds:.2f}",
            f"{found.ours_cpu_seconds:.1f} / {stopped}{found.theirs_cpu_seconds:.1f}",
            f"{megabytes(self.ours_bytes)} / {stopped if self.theirs_bytes else ''}{megabytes(self.theirs_bytes)}",
            "yes" if self.met else "**no**",
        ]

    def _ratio(self, found: Summary, stopped: str) -> str:
        low, middle, high = found.least, found.ratio, found.most
        if self.inverted:
            low, middle, high = 1 / high, 1 / middle, 1 / low
        return f"**{stopped}{middle:.2f}** ({low:.2f}–{high:.2f}; {found.pairs})"


@dataclass(frozen=True)
class Figure:
    """A line with a number of its own."""

    what: str
    goal: str
    value: str
    met: bool
    against: str = "–"

    def cells(self) -> list[str]:
        """The line of the table."""
        return [self.what, self.against, self.goal, f"**{self.value}**", "–", "–", "–", "yes" if self.met else "**no**"]


@dataclass(frozen=True)
class Limit:
    """What the server gives to a client that costs next to nothing."""

    operation: str
    objects: int
    bytes: int
    seconds: float
    client_cpu_seconds: float
    server_cpu_seconds: float
    cores: int

    def words(self) -> str:
        """One sentence."""
        return (
            f"{self.objects:,} objects by a raw {self.operation} loop: {self.objects / self.seconds:,.0f} a second, "
            f"{self.bytes / self.seconds / 1e6:.0f} MB/s of answers; the server used {self.server_cpu_seconds:.1f} and "
            f"the loop {self.client_cpu_seconds:.1f} CPU s in {self.seconds:.1f} s on {self.cores} cores."
        )


Line = Duel | Figure


def megabytes(count: int | None) -> str:
    """Bytes as the table shows them."""
    return "–" if count is None else f"{count / 1e6:.1f}"


def table(lines: Iterable[Line]) -> str:
    """The Markdown table."""
    return "\n".join([HEADER, *(f"| {' | '.join(line.cells())} |" for line in lines)])
