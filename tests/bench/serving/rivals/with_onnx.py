"""What the rivals with ONNX Runtime share: one picture to probabilities, as any user would write it."""

from __future__ import annotations

import ast
import os
from collections.abc import Sequence

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

MODEL = "/models/best.onnx"


class OnnxClassifier:
    """The model and its names."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        self._session = onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])
        metadata = self._session.get_modelmeta().custom_metadata_map
        self._names: dict[int, str] = ast.literal_eval(metadata["names"])
        self.size: int = ast.literal_eval(metadata["imgsz"])[0]

    def pixels(self, picture: Image.Image) -> NDArray[np.float32]:
        """The middle square of the picture as (3, size, size), from 0 to 1."""
        picture = picture.convert("RGB")
        scale = self.size / min(picture.size)
        width, height = (int(side * scale) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        left, top = round((width - self.size) / 2), round((height - self.size) / 2)
        square = np.asarray(picture.crop((left, top, left + self.size, top + self.size)))
        return np.ascontiguousarray(square.transpose(2, 0, 1), dtype=np.float32) / np.float32(255)

    def answers(self, pictures: Sequence[NDArray[np.float32]]) -> list[dict[str, object]]:
        """The label and all probabilities for each picture, by one run of the model."""
        rows = self._session.run(None, {"images": np.stack(pictures)})[0]
        return [
            {
                "label": self._names[int(row.argmax())],
                "probabilities": {self._names[index]: float(share) for index, share in enumerate(row)},
            }
            for row in rows
        ]
