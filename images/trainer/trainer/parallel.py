"""Runs one function over many items in threads, holding only a few in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Event, Thread
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

WAITING_PER_THREAD = 4


def unordered(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Results as they come. The first error ends it: nothing more is started, and what runs is not waited for.

    That may be a transfer that has stalled, and a container that is to stop is killed after some seconds.
    """
    todo: SimpleQueue[Item | None] = SimpleQueue()
    done: SimpleQueue[Future[Result]] = SimpleQueue()
    ended = Event()

    def work() -> None:
        while (item := todo.get()) is not None and not ended.is_set():
            outcome: Future[Result] = Future()
            try:
                outcome.set_result(function(item))
            except BaseException as error:
                ended.set()
                outcome.set_exception(error)
            done.put(outcome)

    # Not a ThreadPoolExecutor: the interpreter waits for its threads at the end.
    for _ in range(threads):
        Thread(target=work, daemon=True).start()
    in_flight = 0
    try:
        for item in items:
            if in_flight == threads * WAITING_PER_THREAD:
                yield done.get().result()
                in_flight -= 1
            todo.put(item)
            in_flight += 1
        for _ in range(in_flight):
            yield done.get().result()
    finally:
        ended.set()
        for _ in range(threads):
            todo.put(None)


def begun(function: Callable[[], Result]) -> Callable[[], Result]:
    """Start one call in a thread, beside what the caller does next; the function returned waits for its result."""
    outcome: Future[Result] = Future()

    def work() -> None:
        try:
            outcome.set_result(function())
        except BaseException as error:
            outcome.set_exception(error)

    Thread(target=work, daemon=True).start()
    return outcome.result


def aside(function: Callable[[], Result]) -> Result:
    """The result of one call, made in a thread: obstore's calls hold up signals where they are made in the main one."""
    return begun(function)()
