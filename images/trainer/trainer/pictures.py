"""Whether a file is a picture that Ultralytics will train on."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from trainer.memory import DecodingMemory

MIN_PIXELS = 10
"""Ultralytics drops a picture with a shorter side."""
MAX_PIXELS = 100_000_000
"""A guard against decompression bombs: above every camera in use, and 400 MB decoded."""

SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "BMP": ".bmp", "TIFF": ".tif", "WEBP": ".webp"}
"""The formats that Ultralytics, torchvision's folder reader and OpenCV all read, and a suffix that they all know."""

API_MAX_PIXELS = 40_000_000
API_MAX_BYTES = 10 * 1024 * 1024
"""What the API takes (docs/contracts.md). Larger pictures are trained on, but cannot be golden."""

REFUSED_MODES = dict.fromkeys(("I", "F"), "32 bits per channel")
"""Pillow's modes that neither OpenCV nor the API takes."""
REFUSED_TIFF_MODES = {
    **dict.fromkeys(("LA", "PA", "RGBA", "RGBa"), "a TIFF with transparency"),
    "LAB": "a TIFF in the colour space LAB",
    "YCbCr": "a TIFF in the colour space YCbCr",
}
"""OpenCV, which trains, and Pillow, which serves, make different pixels of these."""
TIFF_BITS_PER_SAMPLE = 258

JPEG_END = b"\xff\xd9"


class Format(NamedTuple):
    """How a picture is laid out for Ultralytics.

    `whole` is False for a JPEG without its end marker: Ultralytics repairs such a file, older versions in place.
    """

    suffix: str
    whole: bool


class NotAPicture(Exception):
    """A file that cannot be trained on; the message is the cause in words."""


def examine(path: Path, memory: DecodingMemory) -> Format:
    """Decode a picture in full, in this memory. Raises `NotAPicture`."""
    if os.path.getsize(path) == 0:
        raise NotAPicture("an empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as picture:
                _check_header(picture)
                with memory.lent_for(*picture.size):
                    _decode(picture, path)
                suffix = SUFFIXES[str(picture.format)]
                return Format(suffix, suffix != ".jpg" or _ends_as_jpeg(path))
    except NotAPicture:
        raise
    except Image.DecompressionBombError as cause:
        raise NotAPicture(f"more than {MAX_PIXELS // 1_000_000} million pixels") from cause
    except UnidentifiedImageError as cause:
        raise NotAPicture("not a picture") from cause
    except Exception as cause:  # decoders raise anything on damaged input
        raise NotAPicture(f"cannot be decoded: {str(cause) or type(cause).__name__}") from cause


def served(path: Path) -> bool:
    """Whether the API takes a picture that `examine` has let pass."""
    if os.path.getsize(path) > API_MAX_BYTES:
        return False
    with Image.open(path) as picture:
        return picture.width * picture.height <= API_MAX_PIXELS


def _ends_as_jpeg(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-len(JPEG_END), os.SEEK_END)
        return file.read() == JPEG_END


def _decode(picture: Image.Image, path: Path) -> None:
    picture.load()
    if cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR) is None:
        raise NotAPicture("OpenCV, which training reads it with, cannot decode it")


def _check_header(picture: Image.Image) -> None:
    if picture.format not in SUFFIXES:
        raise NotAPicture(f"the format {picture.format} is not one of {', '.join(sorted(SUFFIXES))}")
    width, height = picture.size
    if min(width, height) < MIN_PIXELS:
        raise NotAPicture(f"{width}x{height} pixels; the shorter side must have {MIN_PIXELS}")
    if width * height > MAX_PIXELS:
        raise NotAPicture(f"{width}x{height} pixels, more than {MAX_PIXELS // 1_000_000} million")
    if cause := _refused(picture):
        raise NotAPicture(f"{cause}; save it with 8 bits per channel, in RGB or grey, without transparency")


def _refused(picture: Image.Image) -> str | None:
    if not isinstance(picture, TiffImageFile):
        return REFUSED_MODES.get(picture.mode)
    if picture.mode == "RGB" and max(picture.tag_v2.get(TIFF_BITS_PER_SAMPLE, (1,))) > 8:
        return "a TIFF with 16 bits per colour"
    return (REFUSED_MODES | REFUSED_TIFF_MODES).get(picture.mode)
