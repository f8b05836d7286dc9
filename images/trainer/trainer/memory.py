"""Memory for decoded pictures, shared out between threads, so that many large ones do not reach the container's limit.

A machine has as many threads as cores, and may have very many of these; the container's limit is the project's.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

BYTES_PER_PIXEL = 10
"""What decoding takes at its peak, in Pillow and OpenCV together, on pictures of 24 million pixels."""
SHARE = 0.5
"""Of what the limit leaves. The rest is for what is allocated later, and for the allocator's own waste."""
CGROUP = Path("/sys/fs/cgroup")


class DecodingMemory:
    """Bytes to lend; who asks for more than is free waits its turn."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._free = size
        self._changed = threading.Condition()
        self._turn = threading.Lock()

    @contextmanager
    def lent_for(self, width: int, height: int) -> Iterator[None]:
        """Lend what a picture of this size takes, as soon as it is free; all there is for one that takes more."""
        amount = min(self.size, width * height * BYTES_PER_PIXEL)
        # One waits and the others behind it: else small pictures would overtake a large one for ever.
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._free >= amount)
            self._free -= amount
        try:
            yield
        finally:
            with self._changed:
                self._free += amount
                self._changed.notify()


def limit_bytes(cgroup: Path = CGROUP) -> int:
    """The memory limit of cgroup v2 or v1, or the machine's memory, whichever is less."""
    machine = int(psutil.virtual_memory().total)
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            limit = (cgroup / name).read_text().strip()
        except OSError:
            continue
        return min(machine, int(limit)) if limit.isdecimal() else machine
    return machine


def for_pictures() -> DecodingMemory:
    """Memory for pictures, above all that this process has loaded until now."""
    spare = limit_bytes() - int(psutil.Process().memory_info().rss)
    return DecodingMemory(max(1, int(spare * SHARE)))  # without any to spare, one after the other
