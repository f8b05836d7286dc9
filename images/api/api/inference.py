"""Predictions off the event loop: a bounded number of pictures at once, a bounded number waiting."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from api.memory import Memory
from api.model import Model
from api.preprocess import UnreadablePicture, model_input

MAX_IN_FLIGHT = 32


@dataclass(frozen=True)
class Prediction:
    """The model's answer for one picture."""

    label: str
    confidence: float
    probabilities: dict[str, float]


class Overloaded(Exception):
    """As many pictures, or as large ones, as allowed are being received or worked on already."""


@dataclass(frozen=True)
class _Asked:
    content: bytes
    answer: asyncio.Future[Prediction]


class Inference:
    """Asks one model, from a pool of threads; pictures that wait together go through the model together.

    None waits for others to come: a picture alone is as fast as without batches. What a batch saves is that the model's
    weights, which a decoded picture has driven out of the processor's cache, are read once for all of it.
    """

    def __init__(
        self,
        model: Model,
        threads: int,
        memory: Memory,
        max_waiting_bytes: int,
        on_batch: Callable[[int], None],
    ) -> None:
        """`memory` is what pictures are decoded in, `max_waiting_bytes` what their files may take together.

        `on_batch` is told the size of each batch, by the thread that has run it.
        """
        self._model = model
        self._memory = memory
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="inference")
        self._max_waiting_bytes = max_waiting_bytes
        self._on_batch = on_batch
        self._places: list[int] = []
        self._asked: deque[_Asked] = deque()

    @contextmanager
    def place(self, size: int) -> Iterator[None]:
        """A place for a file of at most `size` bytes, taken before it is received; Overloaded when there is none."""
        if len(self._places) >= MAX_IN_FLIGHT or sum(self._places) + size > self._max_waiting_bytes:
            raise Overloaded
        self._places.append(size)
        try:
            yield
        finally:
            self._places.remove(size)

    async def predict(self, content: bytes) -> Prediction:
        """The prediction for a picture; UnreadablePicture when it is none."""
        asked = _Asked(content, asyncio.get_running_loop().create_future())
        self._asked.append(asked)
        self._pool.submit(self._answer_batch)
        return await asked.answer

    def _answer_batch(self) -> None:
        batch = self._take()
        if not batch:
            return
        outcomes: Sequence[Prediction | Exception]
        try:
            outcomes = predictions(self._model, [asked.content for asked in batch], self._memory)
            self._on_batch(len(batch))
        except Exception as cause:  # a bug, of which each of them is told
            outcomes = [cause] * len(batch)
        batch[0].answer.get_loop().call_soon_threadsafe(_settle, batch, outcomes)

    def _take(self) -> list[_Asked]:
        """Its share of what waits, so that the other threads have some too; nothing when they have taken it all."""
        share = min(self._model.batch, -(-len(self._asked) // self._threads))
        taken: list[_Asked] = []
        with suppress(IndexError):
            while len(taken) < share:
                asked = self._asked.popleft()
                if not asked.answer.cancelled():  # else its caller is gone
                    taken.append(asked)
        return taken


def _settle(batch: Sequence[_Asked], outcomes: Sequence[Prediction | Exception]) -> None:
    for asked, outcome in zip(batch, outcomes, strict=True):
        if asked.answer.done():
            continue
        if isinstance(outcome, Exception):
            asked.answer.set_exception(outcome)
        else:
            asked.answer.set_result(outcome)


def predictions(model: Model, contents: Sequence[bytes], memory: Memory) -> list[Prediction | Exception]:
    """For each picture the prediction, all by one run of the model, or the UnreadablePicture that it is."""
    inputs = [_input(model, content, memory) for content in contents]
    readable = [each for each in inputs if not isinstance(each, UnreadablePicture)]
    rows = iter(model.probabilities(np.stack(readable)).tolist() if readable else [])
    return [
        each if isinstance(each, UnreadablePicture) else prediction_of(model.classes, next(rows)) for each in inputs
    ]


def _input(model: Model, content: bytes, memory: Memory) -> NDArray[np.float32] | UnreadablePicture:
    try:
        return model_input(content, model.image_size, memory)
    except UnreadablePicture as cause:
        return cause


def prediction_of(classes: Sequence[str], probabilities: Sequence[float]) -> Prediction:
    """Names for the numbers; among equals the first class wins, as in Ultralytics."""
    best = max(range(len(classes)), key=probabilities.__getitem__)
    return Prediction(classes[best], probabilities[best], dict(zip(classes, probabilities, strict=True)))
