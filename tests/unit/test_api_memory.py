from __future__ import annotations

import threading

import pytest
from api import limits
from api.memory import Memory, for_pictures

SECONDS = 10


def test_what_does_not_fit_waits_and_is_not_overtaken() -> None:
    memory = Memory(10)
    order: list[str] = []
    waits, large_may_end = threading.Event(), threading.Event()

    def borrow(name: str, amount: int) -> threading.Thread:
        def work() -> None:
            with memory.lent(amount):
                order.append(name)
                if name == "large":
                    assert large_may_end.wait(SECONDS)

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    class Watched(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            waits.set()
            return super().wait(timeout)

    memory._changed = Watched()
    with memory.lent(4):
        large = borrow("large", 8)
        assert waits.wait(SECONDS)
        small = borrow("small", 3)
        assert order == []
    large_may_end.set()
    large.join(SECONDS)
    small.join(SECONDS)
    assert order == ["large", "small"]


def test_what_a_failure_had_is_given_back() -> None:
    memory = Memory(10)
    with pytest.raises(RuntimeError), memory.lent(10):
        raise RuntimeError
    with memory.lent(10):
        pass


@pytest.mark.parametrize(("limit", "size"), [(512 << 20, 250 << 20), (100 << 20, 0)])
def test_pictures_get_a_part_of_what_the_limit_leaves(monkeypatch: pytest.MonkeyPatch, limit: int, size: int) -> None:
    monkeypatch.setattr(limits, "memory_bytes", lambda: limit)
    monkeypatch.setattr(limits, "peak_bytes", lambda: 112 << 20)
    assert for_pictures().size == size
