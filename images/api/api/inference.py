"""Predictions off the event loop: a bounded number of pictures at once, a bounded number waiting."""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from api.memory import Memory
from api.model import Model
from api.preprocess import model_input

MAX_IN_FLIGHT = 32


@dataclass(frozen=True)
class Prediction:
    """The model's answer for one picture."""

    label: str
    confidence: float
    probabilities: dict[str, float]


class Overloaded(Exception):
    """As many pictures, or as large ones, as allowed are being received or worked on already."""


class Inference:
    """Asks one model, from a pool of threads."""

    def __init__(self, model: Model, threads: int, memory: Memory, max_waiting_bytes: int) -> None:
        """`memory` is what pictures are decoded in, `max_waiting_bytes` what their files may take together."""
        self._model = model
        self._memory = memory
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="inference")
        self._max_waiting_bytes = max_waiting_bytes
        self._waiting: list[int] = []

    @contextmanager
    def place(self, size: int) -> Iterator[None]:
        """A place for a file of at most `size` bytes, taken before it is received; Overloaded when there is none."""
        if len(self._waiting) >= MAX_IN_FLIGHT or sum(self._waiting) + size > self._max_waiting_bytes:
            raise Overloaded
        self._waiting.append(size)
        try:
            yield
        finally:
            self._waiting.remove(size)

    async def predict(self, content: bytes) -> Prediction:
        """The prediction for a picture; UnreadablePicture when it is none."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, predict, self._model, content, self._memory)


def predict(model: Model, content: bytes, memory: Memory) -> Prediction:
    """The prediction for one picture; UnreadablePicture when it is none."""
    (probabilities,) = model.probabilities(model_input(content, model.image_size, memory)[np.newaxis])
    return prediction_of(model.classes, probabilities.tolist())


def prediction_of(classes: Sequence[str], probabilities: Sequence[float]) -> Prediction:
    """Names for the numbers; among equals the first class wins, as in Ultralytics."""
    best = max(range(len(classes)), key=probabilities.__getitem__)
    return Prediction(classes[best], probabilities[best], dict(zip(classes, probabilities, strict=True)))
