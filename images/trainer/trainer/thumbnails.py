"""Small pictures for the report, made from what training sees."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from trainer.memory import DecodingMemory
from trainer.pictures import Examined

SIDE = 128
"""Pixels of the longer side."""
QUALITY = 72

log = logging.getLogger(__name__)


class Thumbnail(NamedTuple):
    """A JPEG and its size in pixels."""

    content: bytes
    width: int
    height: int


def thumbnail(path: Path, picture: Examined, memory: DecodingMemory) -> Thumbnail | None:
    """A small copy of a picture, decoded in this memory; None where that fails: it is for people only."""
    try:
        with memory.lent_for(picture.width, picture.height):
            # By OpenCV, as training does: turned as EXIF says, without transparency, with 8 bits.
            pixels = cv2.imdecode(np.fromfile(path, np.uint8), _reduced(picture))
            if pixels is None:
                raise ValueError("OpenCV cannot decode it")
            height, width = pixels.shape[:2]
            scale = min(1.0, SIDE / max(width, height))
            size = max(1, round(width * scale)), max(1, round(height * scale))
            small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        content = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
        return Thumbnail(content, *size)
    except Exception:
        log.warning("thumbnail.failed path=%s", path, exc_info=True)
        return None


def _reduced(picture: Examined) -> int:
    """How OpenCV may decode it: a JPEG decodes to an eighth many times faster."""
    spare = max(picture.width, picture.height) // (2 * SIDE)
    if spare >= 8:
        return int(cv2.IMREAD_REDUCED_COLOR_8)
    if spare >= 4:
        return int(cv2.IMREAD_REDUCED_COLOR_4)
    if spare >= 2:
        return int(cv2.IMREAD_REDUCED_COLOR_2)
    return int(cv2.IMREAD_COLOR)
