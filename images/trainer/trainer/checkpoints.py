"""The folder of one Airflow task on the cache volume: its working files, and what a retry resumes from."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """What an earlier try left: `last` to train on from after `epoch` (counted from 1), `best` so far.

    `finished`: training itself was done, only what follows it was not.
    """

    epoch: int
    last: Path
    best: Path
    finished: bool


class RunFolder:
    """`/cache/runs/<sha1 of dag, run and task>`: `work/` is new for every try, `checkpoint/` outlives it."""

    def __init__(self, cache_dir: Path, dag_id: str, run_id: str, task_id: str) -> None:
        name = hashlib.sha1(f"{dag_id}/{run_id}/{task_id}".encode(), usedforsecurity=False).hexdigest()
        self._path = cache_dir / "runs" / name
        self.work = self._path / "work"
        self._checkpoint = self._path / "checkpoint"

    @property
    def spool(self) -> Path:
        """File of the epochs' metrics."""
        return self._checkpoint / "metrics.jsonl"

    def open(self, fingerprint: str) -> Checkpoint | None:
        """Empty `work/`; the checkpoint of an earlier try if it trained the same thing, else it is removed."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
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

    def save(self, epoch: int, last: Path, best: Path | None, finished: bool = False) -> None:
        """Keep a checkpoint; `best` is None where the best so far has not changed.

        The state that names the files is written last, and names of files are never used again: a kill at any line
        leaves the checkpoint before.
        """
        before = self._state()
        stage = f"{epoch}-finished" if finished else str(epoch)
        state = {**before, "epoch": epoch, "finished": finished, "last": f"last-{stage}.pt"}
        shutil.copyfile(last, self._checkpoint / state["last"])
        if best is not None:
            state["best"] = f"best-{stage}.pt"
            shutil.copyfile(best, self._checkpoint / state["best"])
        self._write_state(state)
        for name in {before.get("last"), before.get("best")} - {state["last"], state["best"]}:
            if name:
                (self._checkpoint / str(name)).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder: the run is done."""
        shutil.rmtree(self._path, ignore_errors=True)

    def _state(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads((self._checkpoint / "state.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return state

    def _write_state(self, state: dict[str, Any]) -> None:
        partial = self._checkpoint / "state.json.partial"
        partial.write_text(json.dumps(state))
        os.replace(partial, self._checkpoint / "state.json")
