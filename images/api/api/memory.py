"""Memory shared out between what is worked on, so that the container's limit is never reached."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from api import limits


class Memory:
    """Bytes to lend; who asks for more than is free waits its turn."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._free = size
        self._changed = threading.Condition()
        self._turn = threading.Lock()

    @contextmanager
    def lent(self, amount: int) -> Iterator[None]:
        """Lends the bytes, at most `size`, as soon as they are free."""
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


def spare_bytes() -> int:
    """What the container's limit leaves above all that this process has needed so far."""
    return max(0, limits.memory_bytes() - limits.peak_bytes())


def for_pictures() -> Memory:
    """The part of the spare memory that pictures are decoded in. Asked for once the models are warm."""
    return Memory(spare_bytes() * 5 // 8)
