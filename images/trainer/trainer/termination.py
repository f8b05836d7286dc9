"""SIGTERM as an exception: it unwinds the command, so that runs are closed and files are left whole."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(BaseException):
    """SIGTERM arrived. Not an `Exception`: libraries that swallow those must not swallow this."""


def raise_on_sigterm() -> None:
    """Make the first SIGTERM raise `Terminated` in the main thread; later ones change nothing."""
    owner = os.getpid()

    def handle(_signum: int, _frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a forked data loader worker inherits the handler
            os._exit(143)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    signal.signal(signal.SIGTERM, handle)


def ignore_sigterm() -> None:
    """From now on SIGTERM changes nothing: the command is about to end, and must end as it has begun to."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@contextmanager
def sigterm_held() -> Iterator[None]:
    """A SIGTERM that arrives in the block acts at its end.

    By a handler, not by the thread's signal mask: any other thread would still take the signal.
    """
    arrived = False

    def note(_signum: int, _frame: FrameType | None) -> None:
        nonlocal arrived
        arrived = True

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        if arrived:
            signal.raise_signal(signal.SIGTERM)
