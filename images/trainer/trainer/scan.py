"""Spares Ultralytics its own scan of a dataset, in which it opens every picture: preflight has decoded them all.

Ultralytics keeps the outcome of its scan in `train.cache` and `val.cache` beside the folders, and believes a file there
whose hash is right. What this writes is such a file, by Ultralytics' own functions; where it is not what that version
expects, Ultralytics scans as ever.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from trainer import operators

operators.declare_missing()

from ultralytics.data import dataset as theirs  # noqa: E402
from ultralytics.data.utils import get_hash, save_dataset_cache_file  # noqa: E402

HASHED: Mapping[str, Callable[[list[str], list[str]], list[str]]] = {
    "1.0.3": lambda paths, classes: paths,
    "1.0.12": lambda paths, classes: paths + classes,
}
"""What the hash covers, by the version of the file's format; these were read in Ultralytics 8.3.253 and 8.4.190."""

log = logging.getLogger(__name__)


def spare(root: Path, classes: Iterable[str], pictures: Mapping[str, Iterable[tuple[str, Path]]]) -> None:
    """Tell Ultralytics that these pictures of the tree at `root` are good; `pictures` are (class, path) by split."""
    version = theirs.DATASET_CACHE_VERSION
    if version not in HASHED:
        log.info("scan.not_spared format=%s: Ultralytics scans the pictures itself", version)
        return
    names = sorted(classes)
    index = {name: number for number, name in enumerate(names)}
    top = root.resolve()  # as Ultralytics names it
    for split, labelled in pictures.items():
        # In the order of torchvision's ImageFolder: the classes by name, in each its files by name.
        found = sorted((label, path.name) for label, path in labelled)
        samples = [(os.path.join(top, split, label, name), index[label]) for label, name in found]
        paths = [path for path, _ in samples]
        outcome = {
            "hash": get_hash(HASHED[version](paths, names)),
            "results": (len(samples), 0, len(samples), samples),  # found, corrupt, of how many, which
            "msgs": [],
        }
        save_dataset_cache_file("", top / f"{split}.cache", outcome, version)
