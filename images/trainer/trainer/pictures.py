"""Whether a file is a picture that Ultralytics will train on."""

from __future__ import annotations

import errno
import os
import warnings
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import PIL
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from trainer.memory import DecodingMemory

RULES = f"rules 1, Pillow {PIL.__version__}, OpenCV {cv2.__version__}"
"""What an examination rests on. Raise the number with every change here that may give a file another outcome: what
hosts remember of the former rules is then no longer believed."""

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


OUT_OF_MEMORY = "out of memory"
"""Pillow's word for its decoders' error -9, which is an `OSError` like those of damaged files."""


class Format(NamedTuple):
    """How a picture is laid out for Ultralytics.

    `whole` is False for a JPEG without its end marker: Ultralytics repairs such a file, older versions in place.
    """

    suffix: str
    whole: bool


class Examined(NamedTuple):
    """A picture that can be trained on; sizes in pixels, as its header tells them."""

    format: Format
    width: int
    height: int


class NotAPicture(Exception):
    """A file that cannot be trained on; the message is the cause in words.

    Where it is not `lasting`, the same bytes may be taken another time, with more memory.
    """

    def __init__(self, cause: str, lasting: bool = True) -> None:
        super().__init__(cause)
        self.lasting = lasting


def examine(path: Path, memory: DecodingMemory) -> Examined:
    """Decode a picture in full, in this memory.

    Raises `NotAPicture`, and `OSError` where the file cannot be read: the disk's fault, not the picture's.
    """
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
                return Examined(Format(suffix, suffix != ".jpg" or _ends_as_jpeg(path)), *picture.size)
    except NotAPicture:
        raise
    except Image.DecompressionBombError as cause:
        raise NotAPicture(f"more than {MAX_PIXELS // 1_000_000} million pixels") from cause
    except UnidentifiedImageError as cause:
        raise NotAPicture("not a picture") from cause
    except Exception as cause:  # decoders raise anything on damaged input
        if _of_the_disk(cause):
            raise
        lasting = not (isinstance(cause, MemoryError) or OUT_OF_MEMORY in str(cause))
        raise NotAPicture(f"cannot be decoded: {str(cause) or type(cause).__name__}", lasting) from cause


def served(path: Path) -> bool:
    """Whether the API takes a picture that `examine` has let pass."""
    with Image.open(path) as picture:
        return served_at(os.path.getsize(path), *picture.size)


def served_at(size_bytes: int, width: int, height: int) -> bool:
    """Whether the API takes a picture of so many bytes and pixels."""
    return size_bytes <= API_MAX_BYTES and width * height <= API_MAX_PIXELS


def _of_the_disk(cause: Exception) -> bool:
    # Pillow's own OSErrors have no number, and a damaged file may send it to a place before the beginning (EINVAL).
    return isinstance(cause, OSError) and cause.errno not in (None, errno.EINVAL)


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
