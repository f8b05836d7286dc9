"""LitServe with ONNX Runtime: the picture as a file of a form, `fast_queue` and batches by the environment."""

from __future__ import annotations

import io
import os
from typing import Annotated, Any

import litserve
import numpy as np
from fastapi import File
from numpy.typing import NDArray
from PIL import Image
from with_onnx import OnnxClassifier

BATCH = int(os.environ.get("BATCH", "1"))
WAIT_SECONDS = 0.005


class Classifier(litserve.LitAPI):
    """One model in each worker."""

    def setup(self, device: str) -> None:
        self.model = OnnxClassifier()

    def decode_request(self, request: Annotated[bytes, File()]) -> NDArray[np.float32]:
        return self.model.pixels(Image.open(io.BytesIO(request)))

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def predict(self, x: Any) -> Any:
        return self.model.answers(x) if BATCH > 1 else self.model.answers([x])[0]

    def unbatch(self, output: Any) -> Any:
        return output

    def encode_response(self, output: dict[str, object]) -> dict[str, object]:
        return output


# FastAPI reads the annotation itself, not its text.
Classifier.decode_request.__annotations__["request"] = Annotated[bytes, File()]

if __name__ == "__main__":
    api = Classifier(max_batch_size=BATCH, batch_timeout=WAIT_SECONDS if BATCH > 1 else 0.0)
    server = litserve.LitServer(api, accelerator="cpu", fast_queue=os.environ.get("FAST_QUEUE") == "1")
    server.run(port=8000, generate_client_file=False, log_level="warning", access_log=False)
