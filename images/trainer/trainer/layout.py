"""How a dataset's folders say what a picture shows: `<class>/…`, or `train/<class>/…` and `val/<class>/…`."""

from __future__ import annotations

from collections.abc import Iterable
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
    found = {parts[0] for parts in (path.split("/", 2) for path in relpaths) if len(parts) == 3}
    return "split" if {"train", "val"} <= found else "flat"


def place(relpath: str, layout: Layout) -> Place | str:
    """Where a file belongs, or in words why it belongs nowhere."""
    parts = relpath.split("/")
    if parts[-1].startswith(".") or parts[-1] == "Thumbs.db":
        return HIDDEN
    if layout == "flat":
        return Place(parts[0], None) if len(parts) > 1 else NOT_IN_A_CLASS
    if len(parts) > 2 and parts[0] == "train":
        return Place(parts[1], "train")
    if len(parts) > 2 and parts[0] == "val":
        return Place(parts[1], "val")
    return OUTSIDE_THE_SPLITS
