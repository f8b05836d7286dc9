"""A few pictures of a snapshot as one small JPEG, for who looks over snapshots."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from trainer import s3
from trainer.catalogue import Catalogue, sheet_key
from trainer.thumbnails import Thumbnail

NAME = "contact-sheet.jpg"
COLUMNS, ROWS = 8, 2
CELL = 64
"""Pixels of a picture's square."""
BACKGROUND = 128
QUALITY = 80

log = logging.getLogger(__name__)


def draw(thumbnails: Sequence[Thumbnail]) -> bytes:
    """The sheet as a JPEG, of some of these, evenly chosen; each is centred in its square."""
    shown = _spread(thumbnails, COLUMNS * ROWS)
    rows = -(-len(shown) // COLUMNS)
    sheet = np.full((max(rows, 1) * CELL, COLUMNS * CELL, 3), BACKGROUND, np.uint8)
    for number, each in enumerate(shown):
        pixels = cv2.imdecode(np.frombuffer(each.content, np.uint8), cv2.IMREAD_COLOR)
        scale = CELL / max(each.width, each.height)
        width, height = max(1, round(each.width * scale)), max(1, round(each.height * scale))
        small = cv2.resize(np.asarray(pixels), (width, height), interpolation=cv2.INTER_AREA)
        top = number // COLUMNS * CELL + (CELL - height) // 2
        left = number % COLUMNS * CELL + (CELL - width) // 2
        sheet[top : top + height, left : left + width] = small
    return cv2.imencode(".jpg", sheet, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


def publish(catalogue: Catalogue, snapshot_id: str, files: Sequence[Path]) -> None:
    """Put the sheet among these files beside the snapshot's record. It is for people only: a failure is a warning."""
    for path in files:
        if path.name == NAME:
            key = sheet_key(catalogue.project, snapshot_id)
            try:
                s3.client(catalogue.access).put_object(
                    Bucket=catalogue.airlock_bucket, Key=key, Body=path.read_bytes(), ContentType="image/jpeg"
                )
            except Exception:
                log.warning("contact_sheet.failed snapshot=%s", snapshot_id, exc_info=True)


def _spread(thumbnails: Sequence[Thumbnail], most: int) -> list[Thumbnail]:
    count = min(len(thumbnails), most)
    return [thumbnails[number * len(thumbnails) // count] for number in range(count)]
