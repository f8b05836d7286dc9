"""The command `train`, from a snapshot to weights that are locked twice."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from trainer import dataset as datasets
from trainer import export, golden, report_files, scan, weights, yolo
from trainer.check import check
from trainer.checkpoints import RunFolder
from trainer.dataset import Dataset, Picture
from trainer.errors import ConfigError, DataError
from trainer.machine import Usage
from trainer.predictions import Floats, Model
from trainer.preflight import Refused
from trainer.s3 import client, error_code, translated
from trainer.settings import CACHE_DIR, TrainSettings
from trainer.tracking import Spool, Tracker, tracked_run

REPORT_FOLDER = "preflight"

log = logging.getLogger(__name__)


def train(settings: TrainSettings, known: dict[str, Any]) -> Mapping[str, Any]:
    """Train on a snapshot, log it to MLflow, lock the weights with DVC; the result of the command.

    What is `known` of the MLflow run goes into the result of a failure too.
    """
    check(settings.device)
    folder = RunFolder(CACHE_DIR, settings.airflow_dag_id, settings.airflow_run_id, settings.airflow_task_id)
    checkpoint = folder.open(_fingerprint(settings))
    model = _model(settings, folder.work)
    yolo.check_arguments(settings, model)
    with tracked_run(
        settings.mlflow_tracking_uri,
        settings.project,
        f"{settings.snapshot_id}-try{settings.airflow_try_number}",
        _tags(settings),
        settings.mlflow_outage_minutes,
    ) as tracker:
        known |= {"run_id": tracker.run_id, "experiment_id": tracker.experiment_id}
        data = _prepare(settings, folder.work, tracker)
        tracker.set_tags({"snapshot_md5": data.snapshot_md5})
        tracker.log_params(_params(settings, data))
        usage = Usage()

        def on_batch() -> None:
            tracker.flush()
            usage.look()

        spool = Spool(folder.spool)
        tracker.use_spool(spool, checkpoint.epoch if checkpoint else 0)
        scan.spare(data.root, data.classes, {"train": _labelled(data.train), "val": _labelled(data.val)})
        trained = yolo.train(
            settings,
            model=model,
            data=data.root,
            pictures=len(data.train),
            folder=folder,
            resume_from=checkpoint,
            on_epoch=_epoch_logger(tracker, usage),
            on_batch=on_batch,
        )
        onnx = export.to_onnx(trained.best, settings.image_size)
        served = Model(onnx, settings.image_size)
        export.check_classes(served, data.classes)
        paths = [picture.path for picture in data.val]
        export.check_parity(trained.best, served, paths)
        probabilities = served.score(paths)
        metrics = _accuracy(data, probabilities)
        tracker.log_metrics(metrics, trained.epochs)
        history = {row.epoch: row.metrics for row in spool.read(trained.epochs)}
        from trainer import figures  # here, since importing matplotlib would hold up the first batch

        tracker.log_files(figures.draw(folder.work / "figures", data, probabilities, history), "figures")
        locked = _lock(settings, folder.work / "locked", trained.best, onnx, served, data)
        tracker.finish(locked)
    folder.remove()
    return {
        **known,
        **locked,
        "snapshot_id": data.snapshot_id,
        "snapshot_md5": data.snapshot_md5,
        "metrics": {"accuracy_top1": metrics["accuracy_top1"], "epochs": trained.epochs},
        "classes": list(data.classes),
    }


def _prepare(settings: TrainSettings, work: Path, tracker: Tracker) -> Dataset:
    """The dataset, and preflight's report of it in MLflow, where a refused one needs it most."""
    try:
        data = _laid_out(settings, work)
    except Refused as refused:
        tracker.log_files(refused.files, REPORT_FOLDER)
        where = f". The report is in the MLflow run {tracker.run_id}, artifact {REPORT_FOLDER}/{report_files.PAGE}"
        raise DataError(str(refused).removesuffix(".") + (where if refused.files else "")) from refused
    tracker.log_files(data.report_files, REPORT_FOLDER)
    return data


def _laid_out(settings: TrainSettings, work: Path) -> Dataset:
    return datasets.prepare(
        settings.s3(),
        project=settings.project,
        train_bucket=settings.train_bucket,
        airlock_bucket=settings.airlock_bucket,
        dvc_bucket=settings.dvc_bucket,
        snapshot_id=settings.snapshot_id,
        cache_dir=CACHE_DIR,
        cache_limit_bytes=settings.cache_limit_bytes,
        packs=settings.packs,
        work_dir=work,
        val_share=settings.val_share,
        min_images_per_class=settings.min_images_per_class,
        max_bad_share=settings.max_bad_share,
    )


def _labelled(pictures: Iterable[Picture]) -> list[tuple[str, Path]]:
    return [(picture.label, picture.path) for picture in pictures]


def _model(settings: TrainSettings, work: Path) -> str:
    """What Ultralytics starts from: a YAML it ships, or weights fetched from the project's bucket."""
    if not settings.model.startswith("s3:"):
        return settings.model
    key = settings.model.removeprefix("s3:")
    path = work / "model.pt"
    what = f"fetching MODEL s3://{settings.train_bucket}/{key}"
    with translated(what):
        connection = client(settings.s3())
        try:
            connection.download_file(settings.train_bucket, key, str(path))
        except connection.exceptions.ClientError as failure:
            if error_code(failure) in {"404", "NoSuchKey"}:
                raise ConfigError(
                    f"{what}: there is no such object. Upload it, or correct the project's model."
                ) from None
            raise
    return str(path)


def _epoch_logger(tracker: Tracker, usage: Usage) -> yolo.EpochCallback:
    def log_epoch(epoch: int, measured: dict[str, float]) -> None:
        log.info("train.epoch epoch=%d %s", epoch, " ".join(f"{name}={value:.4g}" for name, value in measured.items()))
        tracker.log_epoch(epoch, {**measured, **usage.sample()})

    return log_epoch


def _accuracy(data: Dataset, probabilities: Floats) -> dict[str, float]:
    """Share of validation pictures whose class comes first, or in the first five; of the ONNX, which is what serves."""
    truth = np.array([data.classes.index(picture.label) for picture in data.val])
    first_five = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
    return {
        "accuracy_top1": float((first_five[:, 0] == truth).mean()),
        "accuracy_top5": float((first_five == truth[:, None]).any(1).mean()),
    }


def _lock(settings: TrainSettings, folder: Path, best: Path, onnx: Path, model: Model, data: Dataset) -> dict[str, str]:
    """Lock the four objects of a run; their md5s by the names of their tags."""
    folder.mkdir()
    os.replace(best, folder / "best.pt")
    os.replace(onnx, folder / "best.onnx")
    chosen = golden.choose(data.val)
    (folder / "golden.json").write_text(json.dumps(golden.record(chosen, model, data.classes)))
    (folder / "split.json").write_text(json.dumps(_split(data)))
    names = {
        "dvc_hash": "best.pt",
        "dvc_hash_onnx": "best.onnx",
        "dvc_hash_golden": "golden.json",
        "dvc_hash_split": "split.json",
    }
    md5s = weights.lock(settings.s3(), settings.dvc_bucket, folder, list(names.values()))
    return {tag: md5s[name] for tag, name in names.items()}


def _split(data: Dataset) -> dict[str, Any]:
    return {
        "train": [picture.md5 for picture in data.train],
        "val": [{"md5": p.md5, "relpath": p.relpath, "label": p.label} for p in data.val],
        "left_out": [{"relpath": left.relpath, "cause": left.cause} for left in data.left_out],
    }


def _shape(settings: TrainSettings) -> dict[str, Any]:
    """What decides which weights come out."""
    return {
        "snapshot_id": settings.snapshot_id,
        "model": settings.model,
        "image_size": settings.image_size,
        "epochs": settings.epochs,
        "batch": settings.batch,
        "learning_rate": settings.learning_rate,
        "seed": settings.seed,
        "device": settings.device,
        "val_share": settings.val_share,
        "min_images_per_class": settings.min_images_per_class,
        "max_bad_share": settings.max_bad_share,
        **{f"train_args.{name}": value for name, value in sorted(settings.train_args.items())},
        **yolo.VERSIONS,
    }


def _fingerprint(settings: TrainSettings) -> str:
    return hashlib.sha256(json.dumps(_shape(settings), sort_keys=True).encode()).hexdigest()


def _params(settings: TrainSettings, data: Dataset) -> dict[str, Any]:
    return {
        **_shape(settings),
        "threads": yolo.THREADS,
        "memory_bytes": settings.memory_bytes,
        "classes": len(data.classes),
        "train_pictures": len(data.train),
        "val_pictures": len(data.val),
        "left_out": len(data.left_out),
    }


def _tags(settings: TrainSettings) -> dict[str, str]:
    backfill = {"backfill": settings.backfill, MLFLOW_PARENT_RUN_ID: settings.parent_run_id}
    return {
        "project": settings.project,
        "snapshot_id": settings.snapshot_id,
        "git_commit": settings.code_commit,
        "image_id": settings.image_id,
        "trainer": settings.trainer,
        "seed": str(settings.seed),
        "airflow_dag_id": settings.airflow_dag_id,
        "airflow_run_id": settings.airflow_run_id,
        "airflow_task_id": settings.airflow_task_id,
        "airflow_try_number": settings.airflow_try_number,
        "reason": settings.reason,
        "triggered_by": settings.triggered_by,
        **(backfill if settings.backfill else {}),
    }
