"""Pictures of a finished run for MLflow: what it confuses, how it learned, what it was given, its worst mistakes."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

from trainer.dataset import Dataset, Picture
from trainer.predictions import Floats

matplotlib.use("Agg")
matplotlib.rcParams["text.parse_math"] = False  # a `$` in the name of a class or a file begins no formula
from matplotlib import pyplot as plt  # noqa: E402

log = logging.getLogger(__name__)

MISTAKES = 25
MANY_CLASSES = 30


def draw(
    folder: Path, dataset: Dataset, probabilities: Floats, history: Mapping[int, Mapping[str, float]]
) -> list[Path]:
    """Draw into `folder`; the files of the figures that could be drawn. `history` has what each epoch measured."""
    folder.mkdir(parents=True, exist_ok=True)
    truth = np.array([dataset.classes.index(picture.label) for picture in dataset.val])
    figures: dict[str, Callable[[], Any]] = {
        "confusion_matrix.png": lambda: _confusion(dataset.classes, truth, probabilities.argmax(1)),
        "curves.png": lambda: _curves(history),
        "class_balance.png": lambda: _balance(dataset),
        "worst_mistakes.png": lambda: _mistakes(dataset.val, dataset.classes, truth, probabilities),
    }
    return [folder / name for name, figure in figures.items() if _saved(folder / name, figure)]


def _saved(path: Path, figure: Callable[[], Any]) -> bool:
    try:
        figure().savefig(path, dpi=100, bbox_inches="tight")
    except Exception:  # a picture for people is no reason to lose a finished training
        log.warning("figure.failed name=%s", path.name, exc_info=True)
        return False
    finally:
        plt.close("all")
    return True


def _confusion(classes: Sequence[str], truth: Any, predicted: Any) -> Any:
    counts = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(counts, (truth, predicted), 1)
    side = min(4 + 0.35 * len(classes), 16)
    figure, axes = plt.subplots(figsize=(side, side))
    axes.imshow(counts / np.maximum(counts.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true", title=f"{len(truth)} validation pictures")
    if len(classes) <= MANY_CLASSES:
        axes.set_xticks(range(len(classes)), classes, rotation=90)
        axes.set_yticks(range(len(classes)), classes)
        for row, column in zip(*counts.nonzero(), strict=True):
            colour = "white" if counts[row, column] > counts[row].sum() / 2 else "black"
            axes.text(column, row, counts[row, column], ha="center", va="center", color=colour, fontsize=8)
    return figure


def _curves(history: Mapping[int, Mapping[str, float]]) -> Any:
    groups = {"loss": ("train/loss", "val/loss"), "accuracy": ("metrics/accuracy_top1", "metrics/accuracy_top5")}
    figure, all_axes = plt.subplots(1, len(groups), figsize=(10, 4))
    for axes, (title, names) in zip(all_axes, groups.items(), strict=True):
        for name in names:
            points = [(epoch, metrics[name]) for epoch, metrics in sorted(history.items()) if name in metrics]
            if points:
                axes.plot(*zip(*points, strict=True), marker=".", label=name)
        axes.set(title=title, xlabel="epoch")
        axes.legend()
    return figure


def _balance(dataset: Dataset) -> Any:
    figure, axes = plt.subplots(figsize=(min(4 + 0.3 * len(dataset.classes), 20), 4))
    bottom = np.zeros(len(dataset.classes))
    for name, pictures in (("train", dataset.train), ("val", dataset.val)):
        counts = Counter(picture.label for picture in pictures)
        heights = np.array([counts[label] for label in dataset.classes])
        axes.bar(range(len(dataset.classes)), heights, bottom=bottom, label=f"{name} ({heights.sum()})")
        bottom += heights
    axes.set(title="pictures per class")
    axes.set_xticks(range(len(dataset.classes)), dataset.classes, rotation=90)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _mistakes(pictures: Sequence[Picture], classes: Sequence[str], truth: Any, probabilities: Floats) -> Any:
    wrong = np.flatnonzero(probabilities.argmax(1) != truth)
    worst = wrong[np.argsort(-probabilities[wrong].max(1), kind="stable")][:MISTAKES]
    figure, cells = plt.subplots(5, 5, figsize=(10, 11))
    figure.suptitle(f"{len(wrong)} of {len(truth)} wrong; the most confident {len(worst)}")
    for cell in cells.flat:
        cell.axis("off")
    for cell, index in zip(cells.flat, worst, strict=False):
        with Image.open(pictures[index].path) as opened:
            image = opened.convert("RGB")
        image.thumbnail((256, 256))
        cell.imshow(image)
        guess = int(probabilities[index].argmax())
        said = f"{classes[guess]} {probabilities[index, guess]:.0%}, is {pictures[index].label}"
        cell.set_title(f"{said}\n{Path(pictures[index].relpath).name}", fontsize=8)
    return figure
