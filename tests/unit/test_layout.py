"""How folders are read."""

from __future__ import annotations

import pytest
from trainer.layout import Layout, Place, layout_of, place


@pytest.mark.parametrize(
    ("paths", "layout"),
    [
        (["cat/1.png", "dog/2.png"], "flat"),
        (["train/cat/1.png", "val/cat/2.png"], "split"),
        (["train/cat/1.png", "val/cat/2.png", "README.md", "test/cat/3.png"], "split"),
        (["train/cat/1.png", "train/dog/2.png"], "flat"),
        (["train/1.png", "val/2.png"], "flat"),
        ([], "flat"),
    ],
)
def test_a_layout_is_split_only_with_classes_in_both_train_and_val(paths: list[str], layout: str) -> None:
    assert layout_of(paths) == layout


def test_nested_folders_belong_to_their_class() -> None:
    assert place("cat/2026/may/1.png", "flat") == Place("cat", None)
    assert place("val/cat/2026/1.png", "split") == Place("cat", "val")


@pytest.mark.parametrize("layout", ["flat", "split"])
def test_a_file_at_the_top_such_as_weights_is_in_no_class(layout: Layout) -> None:
    assert not isinstance(place("mine.pt", layout), Place)


def test_what_is_outside_the_splits_says_so() -> None:
    assert place("test/cat/1.png", "split") == "outside train/<class>/ and val/<class>/"
