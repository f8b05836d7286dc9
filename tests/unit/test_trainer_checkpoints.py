from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from trainer.checkpoints import ABANDONED_SECONDS, RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path, "digits__retrain", "manual__1", "train")


def _save(folder: RunFolder, epoch: int, finished: bool = False) -> None:
    last, best = folder.work / "last", folder.work / "best"
    last.write_text(f"last {epoch}")
    best.write_text(f"best {epoch}")
    folder.save(epoch, last, best, finished)


def test_a_retry_of_the_same_training_finds_the_last_checkpoint(folder: RunFolder) -> None:
    assert folder.open("same") is None
    _save(folder, 1)
    _save(folder, 2)
    found = folder.open("same")
    assert found
    assert (found.epoch, found.last.read_text(), found.best.read_text()) == (2, "last 2", "best 2")
    assert not found.finished
    assert list(folder.work.iterdir()) == []


def test_other_settings_start_from_nothing(folder: RunFolder) -> None:
    folder.open("20 epochs")
    _save(folder, 7)
    assert folder.open("30 epochs") is None
    assert folder.open("30 epochs") is None


def test_another_airflow_run_never_sees_the_checkpoint(folder: RunFolder, tmp_path: Path) -> None:
    folder.open("same")
    _save(folder, 1)
    assert RunFolder(tmp_path, "digits__retrain", "manual__2", "train").open("same") is None


def test_a_kill_between_the_files_and_the_state_leaves_the_checkpoint_before(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.open("same")
    _save(folder, 1)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "_write_state", killed)
        with pytest.raises(KeyboardInterrupt):
            _save(folder, 2)
    found = folder.open("same")
    assert found
    assert (found.epoch, found.last.read_text(), found.best.read_text()) == (1, "last 1", "best 1")


def test_the_files_are_on_the_disk_before_the_state_that_names_them(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that loses its power keeps a whole checkpoint."""
    folder.open("same")
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(handle: int) -> None:
        done.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        fsync(handle)

    def noted_replace(source: Path, target: Path) -> None:
        done.append(f"replace {target.name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    _save(folder, 1)
    named = done.index("replace state.json")
    assert {"last-1.pt", "best-1.pt", "checkpoint", "state.json.partial"} <= set(done[:named])
    assert "checkpoint" in done[named:]


def test_nothing_is_left_of_a_run_that_is_done(folder: RunFolder, tmp_path: Path) -> None:
    folder.open("same")
    _save(folder, 1, finished=True)
    folder.remove()
    assert list((tmp_path / "runs").iterdir()) == []


def test_what_a_task_that_never_succeeded_left_goes_after_a_month(folder: RunFolder, tmp_path: Path) -> None:
    def ages(owner: RunFolder) -> None:
        long_ago = time.time() - ABANDONED_SECONDS - 1
        for path in (owner.work, owner.spool.parent, owner.work.parent):
            os.utime(path, (long_ago, long_ago))

    abandoned = RunFolder(tmp_path, "digits__retrain", "manual__2", "train")
    under_way = RunFolder(tmp_path, "digits__retrain", "manual__3", "train")
    for each in (folder, abandoned, under_way):
        each.open("same")
    _save(folder, 5)
    for each in (folder, abandoned, under_way):
        ages(each)
    _save(under_way, 9)
    found = folder.open("same")
    assert found
    assert found.epoch == 5
    assert not abandoned.work.parent.exists()
    assert under_way.open("same")
