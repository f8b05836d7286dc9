"""Lets PyPI's torchvision be imported beside a CPU build of torch."""

from __future__ import annotations

import sys

import torch

_LIBRARY = torch.library.Library("torchvision", "FRAGMENT")  # operators live as long as this object


def declare_missing() -> None:
    """Declare torchvision's two operators where its own library cannot be loaded, for it needs CUDA's.

    Detection would need them to work; a classifier never calls them.
    """
    try:
        import torchvision
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        for operator in ("nms", "qnms"):
            _LIBRARY.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision  # noqa: F401
