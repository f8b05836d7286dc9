"""From Ultralytics' checkpoint to the ONNX file that is served, and the proof that both answer the same."""

from __future__ import annotations

import ast
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch

from trainer import predictions, yolo
from trainer.errors import DataError, TrainerError

log = logging.getLogger(__name__)

OPSET = 17
PARITY = 1e-5
PARITY_PICTURES = 256


def to_onnx(best: Path, image_size: int) -> Path:
    """Export `best` beside itself: input `images` (N,3,S,S) with only N free, output (N,classes)."""
    path = Path(
        yolo.load(best).export(
            format="onnx", imgsz=image_size, dynamic=True, simplify=True, opset=OPSET, device="cpu", verbose=False
        )
    )
    model = onnx.load(path)
    # Ultralytics frees height and width too; a server must not be able to feed another size by mistake.
    _, _, height, width = model.graph.input[0].type.tensor_type.shape.dim
    height.dim_value = width.dim_value = image_size
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def check_classes(model: predictions.Model, classes: Sequence[str]) -> None:
    """The classes in the file are the dataset's folders, in order."""
    names = ast.literal_eval(model.metadata["names"])
    exported = [str(names[index]) for index in sorted(names)]
    if exported != list(classes):
        raise DataError(
            f"the model's classes {exported[:5]}… are not the dataset's folders {list(classes)[:5]}…. "
            "Ultralytics renames folders that look like ImageNet's codes (n0…): rename them."
        )


def check_parity(best: Path, model: predictions.Model, paths: Sequence[Path]) -> float:
    """Largest difference between torch's and ONNX Runtime's probabilities, on up to `PARITY_PICTURES` pictures.

    Raises:
        TrainerError: it is above `PARITY`.
    """
    network = yolo.load(best).model.float().eval()
    step = max(1, len(paths) // PARITY_PICTURES)
    worst = 0.0
    with torch.inference_mode():
        for pixels in predictions.batches(list(paths[::step])[:PARITY_PICTURES], model.image_size):
            output = network(torch.from_numpy(pixels))
            expected = (output[0] if isinstance(output, tuple) else output).numpy()
            worst = max(worst, float(np.abs(expected - model.probabilities(pixels)).max()))
    log.info("export.parity max_difference=%.2e", worst)
    if not worst <= PARITY:
        raise TrainerError(
            f"the exported ONNX answers differently from torch: {worst:.2e} is above {PARITY:.0e}. "
            "Nothing was pushed; another variant of the trainer image may export this model correctly."
        )
    return worst
