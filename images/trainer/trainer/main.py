"""One entry: runs a command, and turns every way it can end into an exit code and a result file."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from trainer.errors import ConfigError, InterruptedRun, TrainerError, UnavailableError
from trainer.result import result_path, write_result
from trainer.settings import CACHE_DIR, CheckSettings, SnapshotSettings, SweepSettings, TrainSettings, read
from trainer.termination import Terminated, raise_on_sigterm

log = logging.getLogger(__name__)

SECRETS = ("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD")


def main(arguments: Sequence[str]) -> int:
    """Run `trainer snapshot|check|train|sweep`; the exit code."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_Redacted(handler.formatter))
    path = result_path(os.environ)
    known: dict[str, Any] = {}
    try:
        raise_on_sigterm()
        result = _command(arguments)(known)
        write_result(path, result)
    except (Exception, Terminated) as caught:
        error = _as_error(caught)
        log.error("failed kind=%s message=%s", error.kind, error, exc_info=error.kind == "internal")
        write_result(path, {"error": {"kind": error.kind, "message": _redact(str(error))}, **known})
        return error.exit_code
    log.info("done result=%s", path)
    return 0


Command = Callable[[dict[str, Any]], Mapping[str, Any]]
"""Returns its result. What it puts into its argument until then stands in the result of a failure too."""


def _command(arguments: Sequence[str]) -> Command:
    commands = {"snapshot": _snapshot, "check": _check, "train": _train, "sweep": _sweep}
    if len(arguments) != 1 or arguments[0] not in commands:
        raise ConfigError(f"usage: trainer {'|'.join(commands)}, not {' '.join(arguments)!r}")
    return commands[arguments[0]]


def _snapshot(_known: dict[str, Any]) -> Mapping[str, Any]:
    settings = read(SnapshotSettings)
    from trainer import snapshot

    result = snapshot.take(
        settings.s3(),
        project=settings.project,
        train_bucket=settings.train_bucket,
        airlock_bucket=settings.airlock_bucket,
        dvc_bucket=settings.dvc_bucket,
        expected_digest=settings.expected_digest,
        triggered_by=settings.triggered_by,
    )
    return asdict(result)


def _sweep(_known: dict[str, Any]) -> Mapping[str, Any]:
    settings = read(SweepSettings)
    from trainer.sweep import Remote, sweep

    remote = Remote(settings.s3(), settings.airlock_bucket, settings.dvc_bucket)
    return asdict(
        sweep(remote, CACHE_DIR, frozenset(settings.old_snapshots), settings.keep_days, delete=settings.delete)
    )


def _check(_known: dict[str, Any]) -> Mapping[str, Any]:
    settings = read(CheckSettings)
    from trainer.check import check

    return check(settings.device)


def _train(known: dict[str, Any]) -> Mapping[str, Any]:
    settings = read(TrainSettings)
    from trainer.train import train

    return train(settings, known)


def _as_error(caught: BaseException) -> TrainerError:
    if isinstance(caught, TrainerError):
        return caught
    if isinstance(caught, Terminated):
        return InterruptedRun("stopped by SIGTERM before it was done. A retry goes on from the last checkpoint.")
    if isinstance(caught, OSError) and caught.errno in (errno.ENOSPC, errno.EDQUOT):
        return _disk_full(caught)
    error = TrainerError(f"unexpected {type(caught).__name__}: {caught}. This is a bug: the log has the traceback.")
    error.__cause__ = caught
    return error


def _disk_full(caught: OSError) -> TrainerError:
    where = caught.filename or CACHE_DIR
    free = shutil.disk_usage(CACHE_DIR).free >> 20 if CACHE_DIR.exists() else 0
    return UnavailableError(
        f"the disk is full: writing {where} failed ({caught.strerror}); the cache {CACHE_DIR} has {free} MiB free. "
        "Make room on the Docker host; a retry goes on from the last checkpoint."
    )


def _redact(text: str) -> str:
    for name in SECRETS:
        if secret := os.environ.get(name):
            text = text.replace(secret, f"<{name}>")
    return text


class _Redacted(logging.Formatter):
    """The usual format, without secrets that a library put into a message or traceback."""

    def __init__(self, usual: logging.Formatter | None) -> None:
        super().__init__()
        self._usual = usual or logging.Formatter()

    def format(self, record: logging.LogRecord) -> str:
        return _redact(self._usual.format(record))
