"""Tiny ONNX classifiers in the form that the trainer exports, made in milliseconds."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

SIZE = 32
COLOURS = {"blue": (20, 30, 220), "green": (20, 200, 40), "red": (220, 30, 20)}


def colour_classifier(classes: Sequence[str] = tuple(COLOURS), knows: Sequence[str] | None = None) -> onnx.ModelProto:
    """Names the mean colour of a picture; `knows[i]` is the colour that it takes for `classes[i]`."""
    directions = np.array([COLOURS[colour] for colour in knows or classes], dtype=np.float32).T / 255
    return model(np.asarray(20 * (directions - directions.mean(axis=0)), dtype=np.float32), classes)


def model(weights: Any, classes: Sequence[str], name: str = "images", size: int = SIZE) -> onnx.ModelProto:
    """Mean colour, one linear layer, softmax; with Ultralytics' metadata."""
    nodes = [
        helper.make_node("GlobalAveragePool", [name], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["output0"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3, size, size])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["batch", len(classes)])],
        [numpy_helper.from_array(weights, "weights")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(made, {"names": str(dict(enumerate(classes))), "imgsz": str([size, size])})
    return made


def picture(colour: str, kind: str = "PNG", seed: int = 0, side: int = 48) -> bytes:
    """A noisy square of the colour."""
    noise = np.random.default_rng(seed).integers(-20, 21, (side, side, 3))
    return encoded(Image.fromarray((noise + COLOURS[colour]).clip(0, 255).astype(np.uint8)), kind)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The picture as a file's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
