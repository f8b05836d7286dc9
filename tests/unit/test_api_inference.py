from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from api import inference as inference_module
from api.inference import Inference, Prediction, predictions
from api.memory import Memory
from api.model import MAX_BATCH, Model
from api.preprocess import UnreadablePicture

from tests.classifiers import COLOURS, colour_classifier, picture

MEMORY = Memory(1 << 30)
SECONDS = 10


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """The classifier of colours."""
    path = tmp_path / "best.onnx"
    path.write_bytes(colour_classifier().SerializeToString())
    return Model(path, threads=1)


class Held:
    """In place of `predictions`: notes each batch, and holds it until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, holders: int) -> None:
        self.batches: list[int] = []
        self.all_held = threading.Barrier(holders + 1)
        self._let_go = threading.Event()
        monkeypatch.setattr(inference_module, "predictions", self)

    def __call__(self, model: Model, contents: Sequence[bytes], memory: Memory) -> list[Prediction | Exception]:
        self.batches.append(len(contents))
        if not self._let_go.is_set():
            self.all_held.wait(SECONDS)
            assert self._let_go.wait(SECONDS)
        return predictions(model, contents, memory)

    async def until_held(self) -> None:
        await asyncio.to_thread(self.all_held.wait, SECONDS)

    def let_go(self) -> None:
        self._let_go.set()


async def ask(inference: Inference, contents: Sequence[bytes]) -> list[asyncio.Task[Prediction]]:
    """A task for each, begun."""
    tasks = [asyncio.create_task(inference.predict(content)) for content in contents]
    await asyncio.sleep(0)
    return tasks


def test_pictures_that_wait_together_go_through_the_model_together_and_each_gets_its_own_answer(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch, holders=1)
    told: list[int] = []
    inference = Inference(model, 1, MEMORY, 64 << 20, told.append)

    async def asked() -> list[Any]:
        first = await ask(inference, [picture("red")])
        await held.until_held()
        waiting = await ask(
            inference, [picture("green"), b"no picture", picture("blue"), picture("red"), picture("green")]
        )
        held.let_go()
        return await asyncio.gather(*first, *waiting, return_exceptions=True)

    answers = asyncio.run(asked())
    assert held.batches == told == [1, MAX_BATCH, 1]
    assert [getattr(each, "label", type(each)) for each in answers] == [
        *("red", "green", UnreadablePicture, "blue", "red", "green"),
    ]


def test_threads_share_what_waits(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch, holders=2)
    inference = Inference(model, 2, MEMORY, 64 << 20, lambda size: None)

    async def asked() -> None:
        tasks = await ask(inference, [picture("red")] * 2)
        await held.until_held()
        tasks += await ask(inference, [picture("red")] * 6)
        held.let_go()
        await asyncio.gather(*tasks)

    asyncio.run(asked())
    assert max(held.batches[2:]) == 3


def test_a_picture_whose_caller_is_gone_is_not_worked_on(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch, holders=1)
    inference = Inference(model, 1, MEMORY, 64 << 20, lambda size: None)

    async def asked() -> None:
        first = await ask(inference, [picture("red")])
        await held.until_held()
        gone, stays = await ask(inference, [picture("red"), picture("blue")])
        gone.cancel()
        await asyncio.sleep(0)
        held.let_go()
        assert (await stays).label == "blue"
        await asyncio.gather(*first)

    asyncio.run(asked())
    assert held.batches == [1, 1]


def test_a_batch_answers_as_each_picture_alone(model: Model) -> None:
    contents = [picture(colour, seed=seed) for seed in range(2) for colour in COLOURS]
    alone = [each for content in contents for each in predictions(model, [content], MEMORY)]
    together = predictions(model, contents, MEMORY)
    for one, other in zip(alone, together, strict=True):
        assert isinstance(one, Prediction)
        assert isinstance(other, Prediction)
        assert other.probabilities == pytest.approx(one.probabilities, abs=1e-6)
