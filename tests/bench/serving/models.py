"""Run inside the trainer image: a classifier of YOLO11n's shape, as `best.pt` and `best.onnx`, in /models.

Its weights are drawn, not trained: the time that a picture takes does not depend on them.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="0", YOLO_CONFIG_DIR=tempfile.mkdtemp())

# ruff: noqa: E402
import torch
from trainer.operators import declare_missing

declare_missing()  # before Ultralytics imports torchvision

from trainer.export import to_onnx
from ultralytics import YOLO

CLASSES = 10


def main(size: int) -> None:
    """Writes both files."""
    torch.manual_seed(size)
    yolo = YOLO("yolo11n-cls.yaml")
    network = yolo.model
    linear = torch.nn.Linear(network.model[-1].linear.in_features, CLASSES)
    linear.weight.data *= 20  # so that a picture's class does not hang on the last digits
    network.model[-1].linear = linear
    network.names = {index: f"class {index}" for index in range(CLASSES)}
    network.yaml["nc"] = CLASSES
    network.args = {**(network.args or {}), "imgsz": size}
    network.eval()
    scratch = Path(tempfile.mkdtemp()) / "best.pt"
    yolo.save(scratch)
    shutil.copy(to_onnx(scratch, size), "/models/best.onnx")
    shutil.copy(scratch, "/models/best.pt")


if __name__ == "__main__":
    main(int(sys.argv[1]))
