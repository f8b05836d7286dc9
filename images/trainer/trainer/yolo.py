"""Ultralytics, made hermetic: no network, no callbacks of its own, the same weights for the same seed."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainer import operators
from trainer.checkpoints import Checkpoint, RunFolder
from trainer.errors import ConfigError, DataError
from trainer.settings import TrainSettings

log = logging.getLogger(__name__)

operators.declare_missing()  # before Ultralytics asks for torchvision

import ultralytics  # noqa: E402
from ultralytics import YOLO  # noqa: E402
from ultralytics.engine import trainer as engine  # noqa: E402
from ultralytics.models.yolo.classify import ClassificationTrainer  # noqa: E402
from ultralytics.utils import NUM_THREADS, SETTINGS  # noqa: E402
from ultralytics.utils.torch_utils import strip_optimizer  # noqa: E402

SETTINGS.update(
    {"sync": False} | dict.fromkeys(("clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb"), False)
)


def _mixed_precision_works(model: Any) -> bool:
    return bool(next(model.parameters()).device.type == "cuda")


# In place of Ultralytics' own test, which downloads a model on a GPU and unpickles it.
engine.check_amp = _mixed_precision_works

# A fixed number is what makes sums repeatable. One core is left to the rest of the host: with as many threads as cores,
# every other process that runs stalls all of them at the next barrier.
THREADS: int = NUM_THREADS
VERSIONS = {"ultralytics": ultralytics.__version__, "torch": torch.__version__}

DIVERGED = (
    "training diverged: the loss is not a number. Lower LEARNING_RATE (the project's learning_rate); "
    "on a GPU that is weak in mixed precision, set `amp: false` in its train_args."
)

EpochCallback = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class Trained:
    """The best weights and how many epochs were trained in all."""

    best: Path
    epochs: int


def load(model: str | Path) -> Any:
    """Ultralytics' model from a YAML it ships or from weights."""
    return YOLO(model)


def check_arguments(settings: TrainSettings, model: str) -> None:
    """Ask Ultralytics about the arguments and the model before anything is fetched or logged.

    Raises:
        ConfigError: it does not know an argument or refuses its value, or the model is no classifier.
    """
    from ultralytics.cfg import get_cfg

    try:
        get_cfg(overrides=_arguments(settings, model, Path("unused"), Path("unused"), settings.batch))
    except (SyntaxError, TypeError, ValueError) as error:
        raise ConfigError(f"TRAIN_ARGS: Ultralytics {ultralytics.__version__} refuses them: {error}") from None
    try:
        task = load(model).task
    except Exception as error:  # whatever unpickling or parsing a user's file raises
        raise ConfigError(f"MODEL {settings.model}: cannot be loaded: {type(error).__name__}: {error}") from None
    if task != "classify":
        raise ConfigError(
            f"MODEL {settings.model}: is a model for {task!r}. Take a classifier, such as yolo11n-cls.yaml."
        )


def train(
    settings: TrainSettings,
    *,
    model: str,
    data: Path,
    pictures: int,
    folder: RunFolder,
    resume_from: Checkpoint | None,
    on_epoch: EpochCallback,
    on_batch: Callable[[], None],
) -> Trained:
    """Train on the tree at `data` (`train/<class>/`, `val/<class>/`), from a checkpoint if there is one.

    `pictures` is the number of training pictures. `on_epoch` gets the epoch, counted from 1, and what it measured.
    """
    out = folder.work / "train"
    arguments = _arguments(settings, model, data, out, _batch(settings.batch, pictures))
    if resume_from:
        weights = out / "weights"
        weights.mkdir(parents=True)
        shutil.copyfile(resume_from.last, weights / "last.pt")
        shutil.copyfile(resume_from.best, weights / "best.pt")
        if resume_from.finished:
            strip_optimizer(weights / "best.pt")  # as Ultralytics does after the last epoch
            return Trained(weights / "best.pt", resume_from.epoch)
        arguments["resume"] = str(weights / "last.pt")
    trainer = ClassificationTrainer(overrides=arguments)
    progress = _Progress(folder, on_epoch, on_batch)
    progress.attach(trainer)
    _train(trainer, progress, settings)
    return Trained(Path(trainer.best), progress.epoch)


def _train(trainer: Any, progress: _Progress, settings: TrainSettings) -> None:
    try:
        trainer.train()
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
        if progress.epoch or not settings.train_args:
            raise
        # What `get_cfg` lets pass, and only the making of an optimizer or a data loader refuses.
        raise ConfigError(
            f"TRAIN_ARGS: Ultralytics {ultralytics.__version__} cannot begin to train with them "
            f"({', '.join(sorted(settings.train_args))}): {error}"
        ) from error
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"the GPU's memory does not hold a batch of {trainer.batch_size} pictures: {error}. "
            "Lower the project's batch or image_size."
        ) from error
    except RuntimeError as error:
        if "NaN" in str(error):  # it gives up after three attempts at an epoch
            raise DataError(f"{DIVERGED} Ultralytics says: {error}") from error
        raise


class _Progress:
    """Callbacks on Ultralytics' trainer."""

    def __init__(self, folder: RunFolder, on_epoch: EpochCallback, on_batch: Callable[[], None]) -> None:
        self.epoch = 0
        self._logged = 0
        self._folder = folder
        self._on_epoch = on_epoch
        self._on_batch = on_batch

    def attach(self, trainer: Any) -> None:
        trainer.add_callback("on_train_epoch_start", self._note_epoch)
        trainer.add_callback("on_train_batch_end", lambda _trainer: self._on_batch())
        trainer.add_callback("on_fit_epoch_end", self._end_epoch)

    def _note_epoch(self, trainer: Any) -> None:
        self.epoch = trainer.epoch + 1

    def _end_epoch(self, trainer: Any) -> None:
        if self._logged == self.epoch:  # Ultralytics calls once more after its final validation
            return
        self._logged = self.epoch
        self._on_epoch(self.epoch, _measured(trainer))
        if trainer.stop and not trainer.loss.isfinite():  # Ultralytics misses it in the first epoch, 8.3 in every one
            raise DataError(DIVERGED)
        improved = trainer.best_fitness == trainer.fitness
        self._folder.save(self.epoch, trainer.last, trainer.best if improved else None, finished=bool(trainer.stop))


def _measured(trainer: Any) -> dict[str, float]:
    losses = trainer.label_loss_items(trainer.tloss, prefix="train")
    batch = {"train/batch": trainer.batch_size}  # Ultralytics halves it when the GPU's memory does not hold it
    return {name: float(value) for name, value in {**losses, **trainer.metrics, **trainer.lr, **batch}.items()}


def _batch(batch: int, pictures: int) -> int:
    """Batch size that leaves no last batch of one picture: batch normalisation cannot work on a single value."""
    fitting = batch
    while fitting > 2 and pictures % fitting == 1:
        fitting -= 1
    if fitting != batch:
        log.info("train.batch_lowered from=%d to=%d pictures=%d", batch, fitting, pictures)
    return fitting


def _arguments(settings: TrainSettings, model: str, data: Path, out: Path, batch: int) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        **settings.train_args,
        "model": model,
        "data": str(data),
        "project": str(out.parent),
        "name": out.name,
        "exist_ok": True,
        "imgsz": settings.image_size,
        "epochs": settings.epochs,
        "batch": batch,
        "seed": settings.seed,
        "deterministic": True,
        "device": "0" if settings.device == "cuda" else "cpu",
        "plots": False,
        "verbose": False,
    }
    if settings.learning_rate is not None:
        # `auto` would ignore the rate that was asked for.
        arguments = {"optimizer": "AdamW", **arguments, "lr0": settings.learning_rate}
    return arguments
