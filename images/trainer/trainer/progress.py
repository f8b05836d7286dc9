"""Says in the log, now and then, how far a long step is."""

from __future__ import annotations

import logging
import threading
import time

EVERY_SECONDS = 5.0

log = logging.getLogger(__name__)


class Progress:
    """Counts objects of a step; for several threads. `what` begins each line, `total` is None where it is not known."""

    def __init__(self, what: str, total: int | None = None) -> None:
        self._what = what
        self._of = "" if total is None else f" of={total}"
        self._objects = 0
        self._start = self._reported = time.monotonic()
        self._lock = threading.Lock()

    def add(self, objects: int) -> None:
        """So many more are done."""
        with self._lock:
            self._objects += objects
            now = time.monotonic()
            if now - self._reported > EVERY_SECONDS:
                self._reported = now
                log.info("%s objects=%d%s seconds=%.0f", self._what, self._objects, self._of, now - self._start)
