"""Predictions off the event loop: a bounded number of pictures at once, a bounded number waiting."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from api.model import Model
from api.preprocess import model_input

# With ten megabytes each, what waits stays below the memory of a small container.
MAX_IN_FLIGHT = 32


@dataclass(frozen=True)
class Prediction:
    """The model's answer for one picture."""

    label: str
    confidence: float
    probabilities: dict[str, float]


class Overloaded(Exception):
    """As many pictures as allowed are being worked on already."""


class Inference:
    """Asks one model, from a pool of as many threads as there are cores."""

    def __init__(self, model: Model, threads: int) -> None:
        self._model = model
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="inference")
        self._in_flight = 0

    async def predict(self, content: bytes) -> Prediction:
        """The prediction for a picture; UnreadablePicture when it is none, Overloaded at once when too many wait."""
        if self._in_flight >= MAX_IN_FLIGHT:
            raise Overloaded
        self._in_flight += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, predict, self._model, content)
        finally:
            self._in_flight -= 1


def predict(model: Model, content: bytes) -> Prediction:
    """The prediction for one picture; UnreadablePicture when it is none."""
    (probabilities,) = model.probabilities(model_input(content, model.image_size)[np.newaxis])
    return prediction_of(model.classes, probabilities.tolist())


def prediction_of(classes: Sequence[str], probabilities: Sequence[float]) -> Prediction:
    """Names for the numbers; among equals the first class wins, as in Ultralytics."""
    best = max(range(len(classes)), key=probabilities.__getitem__)
    return Prediction(classes[best], probabilities[best], dict(zip(classes, probabilities, strict=True)))
