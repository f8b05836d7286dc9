"""SIGTERM as an exception: it unwinds the command, so that runs are closed and files are left whole."""

from __future__ import annotations

import os
import signal
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
