"""Whether a file is a picture that Ultralytics will train on."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from PIL import Image, UnidentifiedImageError

MIN_PIXELS = 10
"""Ultralytics drops a picture with a shorter side."""
MAX_PIXELS = 100_000_000
"""A guard against decompression bombs: above every camera in use, and 400 MB decoded."""

SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "BMP": ".bmp", "TIFF": ".tif", "WEBP": ".webp"}
"""The formats that Ultralytics, torchvision's folder reader and OpenCV all read, and a suffix that they all know."""

JPEG_END = b"\xff\xd9"


class NotAPicture(Exception):
    """A file that cannot be trained on; the message is the cause in words."""


def examine(path: Path) -> str:
    """Decode a picture in full; the suffix that its format wants. Raises `NotAPicture`."""
    if os.path.getsize(path) == 0:
        raise NotAPicture("an empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as picture:
                _check_header(picture)
                picture.load()
                return SUFFIXES[str(picture.format)]
    except NotAPicture:
        raise
    except Image.DecompressionBombError as cause:
        raise NotAPicture(f"more than {MAX_PIXELS // 1_000_000} million pixels") from cause
    except UnidentifiedImageError as cause:
        raise NotAPicture("not a picture") from cause
    except Exception as cause:  # decoders raise anything on damaged input
        raise NotAPicture(f"cannot be decoded: {str(cause) or type(cause).__name__}") from cause


def ends_as_jpeg(path: Path) -> bool:
    """Whether a file ends with JPEG's end marker."""
    with path.open("rb") as file:
        file.seek(-len(JPEG_END), os.SEEK_END)
        return file.read() == JPEG_END


def _check_header(picture: Image.Image) -> None:
    if picture.format not in SUFFIXES:
        raise NotAPicture(f"the format {picture.format} is not one of {', '.join(sorted(SUFFIXES))}")
    width, height = picture.size
    if min(width, height) < MIN_PIXELS:
        raise NotAPicture(f"{width}x{height} pixels; the shorter side must have {MIN_PIXELS}")
    if width * height > MAX_PIXELS:
        raise NotAPicture(f"{width}x{height} pixels, more than {MAX_PIXELS // 1_000_000} million")
