"""How a dataset's folders say what a picture shows: `<class>/…`, or `train/<class>/…` and `val/<class>/…`."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Literal, NamedTuple

Layout = Literal["flat", "split"]
Split = Literal["train", "val"]

HIDDEN = "a hidden file"
NOT_IN_A_CLASS = "not in a class folder"
OUTSIDE_THE_SPLITS = "outside train/<class>/ and val/<class>/"


class Place(NamedTuple):
    """A picture's class, and its split where the layout fixes one."""

    label: str
    split: Split | None


def layout_of(relpaths: Iterable[str]) -> Layout:
    """`split` where both `train/<class>/` and `val/<class>/` hold something, else `flat`."""
    folders = {path.rpartition("/")[0] for path in relpaths}
    above_classes = {folder.partition("/")[0] for folder in folders if "/" in folder}
    return "split" if {"train", "val"} <= above_classes else "flat"


def place(relpath: str, layout: Layout) -> Place | str:
    """Where a file belongs, or in words why it belongs nowhere."""
    folder, _, name = relpath.rpartition("/")
    if name.startswith(".") or name == "Thumbs.db":
        return HIDDEN
    return _place_of_folder(folder, layout)


@lru_cache(maxsize=1 << 14)
def _place_of_folder(folder: str, layout: Layout) -> Place | str:
    parts = folder.split("/")
    if layout == "flat":
        return Place(parts[0], None) if folder else NOT_IN_A_CLASS
    if len(parts) > 1 and parts[0] == "train":
        return Place(parts[1], "train")
    if len(parts) > 1 and parts[0] == "val":
        return Place(parts[1], "val")
    return OUTSIDE_THE_SPLITS
