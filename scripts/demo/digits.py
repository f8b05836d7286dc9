"""The demo's pictures: 1,797 handwritten digits of 8 by 8 points, from scikit-learn's data files.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository.
"""

from __future__ import annotations

import csv
import gzip
import io
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

# Read as a file: importing scikit-learn would need all that it stands on.
DATA = Path(sysconfig.get_paths()["purelib"], "sklearn", "datasets", "data", "digits.csv.gz")
SIDE = 8
BRIGHTEST = 16
# Ultralytics drops pictures of fewer than 10 points.
PIXELS = 32
# One in this many is kept back to ask the finished API about.
HELD_BACK = 100


@dataclass(frozen=True)
class Digit:
    """A picture with its label; `png` is the content of its file."""

    name: str
    label: str
    png: bytes


def digits() -> Iterator[Digit]:
    """All pictures, always in the same order and with the same bytes."""
    with gzip.open(DATA, "rt", newline="") as file:
        for number, row in enumerate(csv.reader(file)):
            *points, label = (int(float(value)) for value in row)
            picture = Image.frombytes("L", (SIDE, SIDE), bytes(255 * point // BRIGHTEST for point in points))
            content = io.BytesIO()
            picture.resize((PIXELS, PIXELS), Image.Resampling.BICUBIC).save(content, "PNG")
            yield Digit(f"{number:04}.png", str(label), content.getvalue())


def dataset() -> tuple[list[Digit], list[Digit]]:
    """The pictures for the bucket, and those kept back."""
    everything = list(digits())
    kept_back = everything[::HELD_BACK]
    return [digit for digit in everything if digit not in kept_back], kept_back
