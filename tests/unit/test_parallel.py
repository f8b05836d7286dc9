"""Work in threads: all of it, or an end at once."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Event

import pytest
from trainer import parallel


def test_every_item_gives_its_result() -> None:
    assert sorted(parallel.unordered(lambda n: n * n, range(100), 4)) == [n * n for n in range(100)]


def test_the_first_error_ends_it_though_other_items_hang() -> None:
    hang, started = Event(), []

    def work(n: int) -> int:
        started.append(n)
        if n == 3:
            raise ValueError("the fourth")
        hang.wait(30)
        return n

    begin = time.monotonic()
    with pytest.raises(ValueError, match="the fourth"):
        list(parallel.unordered(work, range(100), 4))
    assert time.monotonic() - begin < 5
    hang.set()
    assert sorted(started) == [0, 1, 2, 3]


def test_one_call_aside_gives_its_result_or_its_error() -> None:
    assert parallel.aside(lambda: "done") == "done"
    with pytest.raises(FileNotFoundError):
        parallel.aside(Path("/no/such/file").read_bytes)
