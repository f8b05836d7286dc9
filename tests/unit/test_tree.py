"""The tree of a run is private, and nothing done to it reaches the cache."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image
from trainer import tree
from trainer.pictures import Format

MD5 = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    path = tmp_path / "cache" / "content"
    path.parent.mkdir()
    Image.effect_noise((16, 16), 80).save(path, "JPEG")
    path.chmod(0o444)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tree.fresh(tmp_path / "work")
    tree.make_classes(root, ["a cat", "dog"])
    return root


def test_every_class_has_a_folder_in_both_splits(root: Path) -> None:
    assert sorted(str(path.relative_to(root)) for path in root.glob("*/*")) == [
        "train/a cat",
        "train/dog",
        "val/a cat",
        "val/dog",
    ]


def test_a_picture_is_a_link_into_the_cache(root: Path, cached: Path) -> None:
    placed = tree.place(root, "train", "a cat", cached, MD5, Format(".jpg", whole=True))
    assert placed == root / "train/a cat" / f"{MD5}.jpg"
    assert os.path.samefile(placed, cached)


def test_a_picture_on_another_disk_is_a_symbolic_link(
    root: Path, cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_disk(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", other_disk)
    placed = tree.place(root, "val", "dog", cached, MD5, Format(".jpg", whole=True))
    assert placed.is_symlink()
    assert placed.read_bytes() == cached.read_bytes()


def test_a_jpeg_that_ultralytics_would_rewrite_in_place_is_a_copy(root: Path, cached: Path) -> None:
    cached.chmod(0o644)
    cached.write_bytes(before := cached.read_bytes() + b"trailing")
    placed = tree.place(root, "train", "dog", cached, MD5, Format(".jpg", whole=False))
    placed.write_bytes(b"rewritten")
    assert cached.read_bytes() == before


def test_two_runs_have_trees_of_their_own(tmp_path: Path) -> None:
    assert tree.fresh(tmp_path) != tree.fresh(tmp_path)
