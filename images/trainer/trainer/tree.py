"""Lays pictures out as Ultralytics wants them: `train/<class>/` and `val/<class>/`, links into the cache."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from trainer.layout import Split
from trainer.pictures import Format


def fresh(work_dir: Path) -> Path:
    """A new directory for one run's tree: Ultralytics writes its own cache files into it."""
    work_dir.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="dataset-", dir=work_dir))


def make_classes(root: Path, labels: Iterable[str]) -> None:
    """The folders of every class in both splits."""
    for label in labels:
        for split in ("train", "val"):
            (root / split / label).mkdir(parents=True, exist_ok=True)


def place(root: Path, split: Split, label: str, source: Path, md5: str, form: Format) -> Path:
    """Put one picture into the tree and return its path there; its name is its md5, so it is safe and unique."""
    # A string until it is done: there may be a million, and joining Paths costs more than the link.
    target = f"{root}/{split}/{label}/{md5}{form.suffix}"
    if not form.whole:
        # Ultralytics repairs such a file, older versions in place: that must not reach the cache.
        shutil.copyfile(source, target)
        return Path(target)
    try:
        os.link(source, target)
    except OSError as cause:
        # Another disk, a file of another user (protected_hardlinks), a file system without hard links.
        if cause.errno not in {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP}:
            raise
        os.symlink(os.path.realpath(source), target)
    return Path(target)
