"""BentoML with ONNX Runtime: the picture as the body; in batches where the environment says so."""

import os
from typing import Any

import bentoml
from PIL.Image import Image
from with_onnx import OnnxClassifier

BATCH = int(os.environ.get("BATCH", "8"))


@bentoml.service(workers=1, threads=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Single:
    """One picture at a time."""

    def __init__(self) -> None:
        self.model = OnnxClassifier()

    @bentoml.api
    def predict(self, picture: Image, /) -> dict[str, Any]:
        return self.model.answers([self.model.pixels(picture)])[0]


@bentoml.service(workers=1, threads=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Batched:
    """As many as wait, by adaptive batching."""

    def __init__(self) -> None:
        self.model = OnnxClassifier()

    @bentoml.api(batchable=True, max_batch_size=BATCH, max_latency_ms=1000)
    def predict(self, pictures: list[Image]) -> list[dict[str, Any]]:
        return self.model.answers([self.model.pixels(picture) for picture in pictures])
