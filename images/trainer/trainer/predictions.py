"""Scores pictures with an ONNX model, preprocessed as Ultralytics' own classifier does in `predict`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from trainer import memory
from trainer.memory import DecodingMemory

BATCH = 64
Floats = npt.NDArray[np.float32]


class Model:
    """An ONNX classifier."""

    def __init__(self, path: Path, image_size: int) -> None:
        import onnxruntime

        self.image_size = image_size
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # Threads that spin while they wait slow each other down many times over on a busy host.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    @property
    def metadata(self) -> dict[str, str]:
        """What the exporter wrote into the file."""
        found: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        return found

    def probabilities(self, pixels: Floats) -> Floats:
        """(N, 3, S, S) to (N, classes)."""
        result: Any = self._session.run(None, {"images": pixels})[0]
        return np.asarray(result, dtype=np.float32)

    def score(self, paths: Sequence[Path]) -> Floats:
        """Probabilities of pictures on disk, in their order."""
        return np.concatenate([self.probabilities(pixels) for pixels in batches(paths, self.image_size)])


def batches(paths: Sequence[Path], size: int) -> Iterator[Floats]:
    """Pictures as (N, 3, size, size), N at most `BATCH`, decoded in parallel."""
    room = memory.for_pictures()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for start in range(0, len(paths), BATCH):
            yield np.stack(list(pool.map(lambda path: _read(path, size, room), paths[start : start + BATCH])))


def _read(path: Path, size: int, room: DecodingMemory) -> Floats:
    with Image.open(path) as header:
        shape = header.size
    with room.lent_for(*shape):
        return pixels(path.read_bytes(), size)


def pixels(content: bytes, size: int) -> Floats:
    """One picture as (3, size, size) RGB, 0 to 1: shortest side scaled to `size`, bilinear, then the centre.

    Decoded by OpenCV, as Ultralytics does: Pillow differs for 16-bit and CMYK pictures.
    """
    decoded: Any = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    image = Image.fromarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB))
    width, height = image.size
    short = min(width, height)
    if short != size:
        # torchvision's rounding: the long side is cut off, not rounded.
        image = image.resize((int(size * width / short), int(size * height / short)), Image.Resampling.BILINEAR)
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    image = image.crop((left, top, left + size, top + size))
    return np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / np.float32(255)
