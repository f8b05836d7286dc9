"""Run inside the trainer image, with `images/api` and `tests.photograph` on PYTHONPATH: the API's answers against
Ultralytics' own `predict`.

Its last line is {"spread": <standard deviation of a probability over the pictures>, "probabilities": {"<picture>":
<largest difference>}, "inputs": {"<picture>": <largest difference of what the network was given>}}.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="0", YOLO_CONFIG_DIR=tempfile.mkdtemp())

# ruff: noqa: E402
import numpy as np
import torch
from trainer.operators import declare_missing

declare_missing()  # before Ultralytics imports torchvision

import cv2
from api.memory import Memory
from api.model import Model
from api.preprocess import model_input
from PIL import Image
from trainer.export import to_onnx
from ultralytics import YOLO

from tests.photograph import photograph

SIZE = 64
CLASSES = 10
STEPS = 40
MEMORY = Memory(1 << 30)


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def pictures() -> Iterator[tuple[str, bytes]]:
    """File name and content, of everything that a user may send."""
    photo = photograph(1, 640, 481)
    for seed, (width, height) in enumerate([(640, 480), (97, 301), (64, 64), (63, 65), (31, 30), (1, 1), (300, 7)]):
        other = photograph(seed, width, height)
        yield f"size_{width}x{height}.jpg", encoded(other, "JPEG", quality=90)
        yield f"size_{width}x{height}.png", encoded(other, "PNG")
    yield "progressive.jpg", encoded(photo, "JPEG", progressive=True)
    yield "quality50.jpg", encoded(photo, "JPEG", quality=50)
    yield "grey.jpg", encoded(photo.convert("L"), "JPEG")
    yield "cmyk.jpg", encoded(photo.convert("CMYK"), "JPEG")
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        for suffix, kind in (("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP")):
            yield f"exif{turn}.{suffix}", encoded(photo, kind, exif=exif)
    alpha = photo.copy()
    alpha.putalpha(photo.convert("L"))
    grey_alpha = photo.convert("L")
    grey_alpha.putalpha(photo.convert("L"))
    yield "alpha.png", encoded(alpha, "PNG")
    yield "grey_alpha.png", encoded(grey_alpha, "PNG")
    yield "alpha.webp", encoded(alpha, "WEBP")
    yield "alpha.bmp", encoded(alpha, "BMP")
    for mode in ("L", "P", "1"):
        yield f"mode_{mode}.png", encoded(photo.convert(mode), "PNG")
        yield f"mode_{mode}.bmp", encoded(photo.convert(mode), "BMP")
    yield "transparent_palette.png", encoded(photo.convert("P"), "PNG", transparency=3)
    deep = np.random.default_rng(2).integers(0, 65536, (60, 80, 3), dtype=np.uint16)
    yield "deep_grey.png", cv2.imencode(".png", deep[..., 0])[1].tobytes()
    yield "deep_colour.png", cv2.imencode(".png", deep)[1].tobytes()
    yield "lossy.webp", encoded(photo, "WEBP")
    yield "lossless.webp", encoded(photo, "WEBP", lossless=True)
    yield "animated.webp", encoded(photo, "WEBP", save_all=True, append_images=[photo.rotate(90)])
    yield "plain.bmp", encoded(photo, "BMP")
    yield "plain.tif", encoded(photo, "TIFF")


def checkpoint(directory: Path) -> Path:
    """A classifier trained for a moment to tell scenes apart, so that its answers are neither even nor 0 and 1."""
    torch.manual_seed(0)
    yolo = YOLO("yolo11n-cls.yaml")
    network = yolo.model
    network.model[-1].linear = torch.nn.Linear(network.model[-1].linear.in_features, CLASSES)
    network.names = {index: f"class {index}" for index in range(CLASSES)}
    network.yaml["nc"] = CLASSES
    scenes = torch.stack(
        [
            torch.from_numpy(model_input(encoded(photograph(seed, 90, 70), "PNG"), SIZE, MEMORY))
            for seed in range(CLASSES)
        ]
    )
    labels = torch.arange(CLASSES).repeat(3)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    network.train()
    for _ in range(STEPS):
        batch = (scenes.repeat(3, 1, 1, 1) + 0.1 * torch.randn(3 * CLASSES, 3, SIZE, SIZE)).clamp(0, 1)
        loss = torch.nn.functional.cross_entropy(network(batch), labels, label_smoothing=0.2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    path = directory / "model.pt"
    yolo.save(path)
    return path


def main() -> None:
    directory = Path(tempfile.mkdtemp())
    weights = checkpoint(directory)
    ours, theirs = Model(to_onnx(weights, SIZE), threads=1), YOLO(weights)
    given: list[torch.Tensor] = []
    theirs.model.register_forward_pre_hook(lambda module, arguments: given.append(arguments[0]))
    probabilities: dict[str, float] = {}
    inputs: dict[str, float] = {}
    answers = []
    for name, content in pictures():
        path = directory / name
        path.write_bytes(content)
        (result,) = theirs.predict(path, imgsz=SIZE, device="cpu", verbose=False)
        expected = result.probs.data.numpy()
        pixels = model_input(content, SIZE, MEMORY)
        inputs[name] = float(np.abs(pixels - given[-1][0].numpy()).max())
        probabilities[name] = float(np.abs(ours.probabilities(pixels[np.newaxis])[0] - expected).max())
        answers.append(expected)
    spread = float(np.std(answers, axis=0).max())
    print(json.dumps({"spread": spread, "probabilities": probabilities, "inputs": inputs}))


if __name__ == "__main__":
    main()
