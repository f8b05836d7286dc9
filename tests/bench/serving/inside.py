"""Run inside the API image: the API's own code without the server around it.

`ceiling SECONDS`: decode, preprocess and `session.run` in a loop. `batches SECONDS`: the same, 1, 2, 4 and 8
pictures at once. The last line is the result in JSON: pictures a second.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from api import limits
from api.memory import Memory
from api.model import Model
from api.preprocess import model_input

BATCHES = (1, 2, 4, 8)


def rate(work: Callable[[], object], seconds: float) -> float:
    """How often it is done in a second, after once for nothing."""
    work()
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        work()
        done += 1
    return done / (time.perf_counter() - began)


def main(what: str, seconds: float) -> None:
    """Prints pictures a second: one number, or one for each batch."""
    model = Model(Path("/models/best.onnx"), limits.cores())
    memory, picture = Memory(1 << 30), Path("/models/picture.jpg").read_bytes()

    def batch(number: int) -> Callable[[], object]:
        return lambda: model.probabilities(
            np.stack([model_input(picture, model.image_size, memory) for _ in range(number)])
        )

    if what == "ceiling":
        print(json.dumps(rate(batch(1), seconds)))
    else:
        print(json.dumps({number: number * rate(batch(number), seconds) for number in BATCHES}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
