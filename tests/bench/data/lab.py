"""The sizes of a benchmark, and the datasets that its rows share: each is uploaded once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from tests.bench.data.arena import LARGE_BYTES, SMALL_BYTES, Arena, Dataset, seeded


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    few: int
    """Small files of the pulls and of a snapshot of new objects."""
    large: int
    large_bytes: int
    many: int
    """Small files of a dataset of which little changes."""
    changed: int
    synthetic: int
    synthetic_changed: int


SCALES = {
    "small": Scale(300, 2, 8 << 20, 1_000, 10, 20_000, 20),
    "full": Scale(10_000, 20, LARGE_BYTES, 100_000, 100, 1_000_000, 1_000),
}


@dataclass
class Lab:
    """What every row is given."""

    arena: Arena
    scale: Scale

    @cached_property
    def few(self) -> Dataset:
        """Small files."""
        return seeded(self.arena, self.scale.few, SMALL_BYTES, 1_000_000_000)

    @cached_property
    def large(self) -> Dataset:
        """Large files."""
        return seeded(self.arena, self.scale.large, self.scale.large_bytes, 2_000_000_000)

    @cached_property
    def many(self) -> Dataset:
        """Very many small files."""
        return seeded(self.arena, self.scale.many, SMALL_BYTES, 3_000_000_000)
