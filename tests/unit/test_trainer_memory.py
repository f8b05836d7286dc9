from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from PIL import Image
from trainer import examinations, memory
from trainer.memory import BYTES_PER_PIXEL, DecodingMemory, limit_bytes
from trainer.predictions import batches
from trainer.preflight import decode


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
def test_the_limit_is_the_containers(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("1073741824\n")
    assert limit_bytes(tmp_path) == 1 << 30


def test_without_a_limit_it_is_the_machines_memory(tmp_path: Path) -> None:
    assert limit_bytes(tmp_path) == psutil.virtual_memory().total
    (tmp_path / "memory.max").write_text("max\n")
    assert limit_bytes(tmp_path) == psutil.virtual_memory().total


def test_pictures_that_do_not_fit_together_are_decoded_one_after_the_other() -> None:
    shared = DecodingMemory(100 * BYTES_PER_PIXEL)
    guard, pixels, most = threading.Lock(), 0, 0

    def decode(side: int) -> None:
        nonlocal pixels, most
        with shared.lent_for(side, side):
            with guard:
                pixels += side * side
                most = max(most, pixels)
            with guard:
                pixels -= side * side

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(decode, [7, 3, 8, 5, 9, 1] * 50))
    assert 0 < most <= 100


def test_a_picture_larger_than_all_there_is_comes_alone_and_does_not_wait_for_ever() -> None:
    shared = DecodingMemory(100)
    for _ in range(2):
        with shared.lent_for(10_000, 10_000):
            pass


@pytest.fixture
def lent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The sizes of pictures that memory was asked for."""
    asked: list[tuple[int, int]] = []

    class Noting(DecodingMemory):
        def lent_for(self, width: int, height: int):  # type: ignore[no-untyped-def]
            asked.append((width, height))
            return super().lent_for(width, height)

    monkeypatch.setattr(memory, "for_pictures", lambda: Noting(1 << 20))
    return asked


def test_preflight_and_scoring_ask_for_memory_before_they_decode(lent: list[tuple[int, int]], tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.new("RGB", (40, 30)).save(path)
    with examinations.opened(tmp_path / "pictures.db") as known:
        assert decode(["aa"], lambda _: path, known).anew == 1
    list(batches([path], 32))
    assert lent == [(40, 30), (40, 30)]
