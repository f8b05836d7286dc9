"""The command `evaluate`: challenger and champion on the same pictures, with the code that serves."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from api import limits, log, memory
from api.errors import DataError
from api.mlflow import read_run
from api.model import Model
from api.preprocess import UnreadablePicture, model_input
from api.scores import Answers, Evaluation, compare
from api.settings import EvaluateSettings
from api.split import Picture, Split, read_split
from api.store import Store

CACHE = Path("/cache")
# The trainer's own limit: what it trained on can be scored, though the API would refuse it from a stranger.
MAX_PIXELS = 100_000_000
# Fetching waits for the network, decoding for a core: more threads than cores keep both busy.
FETCHERS = 16
BATCH = 32


@dataclass(frozen=True)
class _Candidate:
    run_id: str
    model: Model
    split: Split


def evaluate(settings: EvaluateSettings, cache: Path = CACHE) -> Evaluation:
    """Scores the runs that the settings name; DataError when nothing is left to score."""
    store = Store(settings)
    challenger = _candidate(settings.challenger_run_id, settings, store, cache)
    champion = _candidate(settings.champion_run_id, settings, store, cache) if settings.champion_run_id else None
    pictures = _unseen(challenger, champion)
    log.event("evaluating", pictures=len(pictures), challenger=challenger.run_id, champion=champion and champion.run_id)
    models = [challenger.model] + ([champion.model] if champion else [])
    rows = list(_labels(pictures, models, store, cache))
    return compare(
        pictures,
        len(challenger.split.val) - len(pictures),
        Answers(challenger.run_id, challenger.model.classes, [row[0] for row in rows]),
        Answers(champion.run_id, champion.model.classes, [row[1] for row in rows]) if champion else None,
    )


def _candidate(run_id: str, settings: EvaluateSettings, store: Store, cache: Path) -> _Candidate:
    tags = read_run(settings.mlflow_url, run_id).require(["dvc_hash_onnx", "dvc_hash_split"])
    model = Model(store.fetch(tags["dvc_hash_onnx"], "models", cache), limits.cores())
    return _Candidate(run_id, model, read_split(store.fetch(tags["dvc_hash_split"], "models", cache), run_id))


def _unseen(challenger: _Candidate, champion: _Candidate | None) -> Sequence[Picture]:
    """The challenger's validation pictures, less those that the champion was trained on."""
    seen = champion.split.train if champion else frozenset()
    pictures = [picture for picture in challenger.split.val if picture.md5 not in seen]
    if not pictures:
        raise DataError(
            f"Nothing to score run {challenger.run_id} on: of its {len(challenger.split.val)} validation pictures, "
            f"{len(challenger.split.val)} were training pictures of the champion. "
            "Add pictures, or keep a val/ folder that no model is trained on."
        )
    return pictures


def _labels(
    pictures: Sequence[Picture], models: Sequence[Model], store: Store, cache: Path
) -> Iterator[tuple[str, ...]]:
    """For each picture what each model says. A batch at a time is decoded while the one before is scored."""
    sizes = sorted({model.image_size for model in models})
    room = memory.for_pictures()

    def inputs(picture: Picture) -> dict[int, NDArray[np.float32]]:
        content = store.fetch(picture.md5, "data", cache).read_bytes()
        try:
            return {size: model_input(content, size, room, MAX_PIXELS) for size in sizes}
        except UnreadablePicture as cause:
            raise DataError(
                f"The validation picture {picture.relpath} (md5 {picture.md5}) cannot be scored: {cause}. "
                "Take it out of the bucket and train again."
            ) from None

    pool = ThreadPoolExecutor(FETCHERS)
    try:
        begun = [pool.submit(inputs, picture) for picture in pictures[:BATCH]]
        for start in range(BATCH, len(pictures) + BATCH, BATCH):
            batch = begun
            begun = [pool.submit(inputs, picture) for picture in pictures[start : start + BATCH]]
            yield from _scored([future.result() for future in batch], models)
    finally:
        pool.shutdown(cancel_futures=True)


def _scored(inputs: Sequence[dict[int, NDArray[np.float32]]], models: Sequence[Model]) -> Iterator[tuple[str, ...]]:
    answers = []
    for model in models:
        probabilities = model.probabilities(np.stack([each[model.image_size] for each in inputs]))
        answers.append([model.classes[index] for index in probabilities.argmax(axis=1)])
    return zip(*answers, strict=True)
