"""Golden predictions: pictures and the answers that a deployed model must repeat."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain, islice, zip_longest
from typing import Any

import numpy as np

from trainer.dataset import Picture
from trainer.pictures import served
from trainer.predictions import Model, pixels

PICTURES = 16
LARGEST_BYTES = 1_000_000


def choose(pictures: Sequence[Picture], count: int = PICTURES) -> list[Picture]:
    """Up to `count` pictures that the API takes, one class after the other; small files come first."""
    by_class: defaultdict[str, list[Picture]] = defaultdict(list)
    for picture in sorted(pictures, key=lambda picture: picture.md5):
        by_class[picture.label].append(picture)
    for group in by_class.values():
        group.sort(key=lambda picture: max(picture.path.stat().st_size, LARGEST_BYTES))
    turns = zip_longest(*(by_class[label] for label in sorted(by_class)))
    in_turn = (picture for picture in chain.from_iterable(turns) if picture is not None and served(picture.path))
    return list(islice(in_turn, count))


def record(pictures: Sequence[Picture], model: Model, classes: Sequence[str]) -> dict[str, Any]:
    """The document `golden.json`: each picture and its probabilities, asked one by one as a server is."""
    return {"images": [_entry(picture, model, classes) for picture in pictures]}


def _entry(picture: Picture, model: Model, classes: Sequence[str]) -> dict[str, Any]:
    content = picture.path.read_bytes()
    probabilities = model.probabilities(np.expand_dims(pixels(content, model.image_size), 0))[0]
    return {
        "name": picture.relpath,
        "md5": picture.md5,
        "label": picture.label,
        "content": base64.b64encode(content).decode(),
        "probabilities": {name: float(p) for name, p in zip(classes, probabilities, strict=True)},
    }
