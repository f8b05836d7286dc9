"""The folder of one Airflow task on the cache volume: its working files, and what a retry resumes from."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

ABANDONED_SECONDS = 30 * 24 * 3600.0  # long after the last retry; an epoch takes less


@dataclass(frozen=True)
class Checkpoint:
    """What an earlier try left: `last` to train on from after `epoch` (counted from 1), `best` so far.

    `finished`: no epoch was left to train, only what follows them was not done.
    """

    epoch: int
    last: Path
    best: Path
    finished: bool


class RunFolder:
    """`/cache/runs/<sha1 of dag, run and task>`: `work/` is new for every try, `checkpoint/` outlives it."""

    def __init__(self, cache_dir: Path, dag_id: str, run_id: str, task_id: str) -> None:
        name = hashlib.sha1(f"{dag_id}/{run_id}/{task_id}".encode(), usedforsecurity=False).hexdigest()
        self._runs = cache_dir / "runs"
        self._path = self._runs / name
        self.work = self._path / "work"
        self._checkpoint = self._path / "checkpoint"

    @property
    def spool(self) -> Path:
        """File of the epochs' metrics."""
        return self._checkpoint / "metrics.jsonl"

    def open(self, fingerprint: str) -> Checkpoint | None:
        """Empty `work/`; the checkpoint of an earlier try if it trained the same thing, else it is removed.

        Folders of tasks that never succeeded go when nothing has been written to them for a month.
        """
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        self._remove_abandoned()
        state = self._state()
        if state.get("fingerprint") != fingerprint:
            shutil.rmtree(self._checkpoint, ignore_errors=True)
            self._checkpoint.mkdir()
            self._write_state({"fingerprint": fingerprint, "epoch": 0, "finished": False})
            return None
        if not state["epoch"]:
            return None
        log.info("checkpoint.found epoch=%d finished=%s", state["epoch"], state["finished"])
        return Checkpoint(
            state["epoch"], self._checkpoint / state["last"], self._checkpoint / state["best"], state["finished"]
        )

    def save(self, epoch: int, last: Path, best: Path | None, finished: bool) -> None:
        """Keep the checkpoint of an epoch; `best` is None where the best so far has not changed.

        The state that names the files is written last, and names of files are never used again: a kill or a loss of
        power at any line leaves the checkpoint before.
        """
        before = self._state()
        state = {**before, "epoch": epoch, "finished": finished, "last": f"last-{epoch}.pt"}
        _copy(last, self._checkpoint / state["last"])
        if best is not None:
            state["best"] = f"best-{epoch}.pt"
            _copy(best, self._checkpoint / state["best"])
        self._write_state(state)
        log.info("checkpoint.saved epoch=%d finished=%s", epoch, finished)
        for name in {before.get("last"), before.get("best")} - {state["last"], state["best"]}:
            if name:
                (self._checkpoint / str(name)).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder: the run is done."""
        shutil.rmtree(self._path, ignore_errors=True)

    def _remove_abandoned(self) -> None:
        for folder in self._runs.iterdir():
            try:
                written = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
            except OSError:  # such as one that its own task has just removed
                continue
            if time.time() - written > ABANDONED_SECONDS:
                log.info("checkpoint.abandoned_removed folder=%s", folder.name)
                shutil.rmtree(folder, ignore_errors=True)

    def _state(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads((self._checkpoint / "state.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return state

    def _write_state(self, state: dict[str, Any]) -> None:
        partial = self._checkpoint / "state.json.partial"
        with partial.open("w") as file:
            file.write(json.dumps(state))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self._checkpoint / "state.json")
        _write_back(self._checkpoint)


def _copy(source: Path, target: Path) -> None:
    """A copy that is on the disk when this returns, its name too."""
    shutil.copyfile(source, target)
    _write_back(target)
    _write_back(target.parent)


def _write_back(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
