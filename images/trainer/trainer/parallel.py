"""Runs one function over many items in threads, holding only a few in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

WAITING_PER_THREAD = 4


def unordered(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Results as they come. The first error ends it: nothing more is started, what runs is waited for."""
    done: SimpleQueue[Future[Result]] = SimpleQueue()
    in_flight = 0
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            if in_flight == threads * WAITING_PER_THREAD:
                yield done.get().result()
                in_flight -= 1
            pool.submit(function, item).add_done_callback(done.put)
            in_flight += 1
        for _ in range(in_flight):
            yield done.get().result()
    finally:
        pool.shutdown(cancel_futures=True)
