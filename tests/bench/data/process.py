"""Runs a client in a process of its own and measures it, start included."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.bench.data.pairs import Measured

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / ".airlock" / "bench"


def end_on_sigterm() -> None:
    """Let a stopped benchmark clean up: else its server would live on."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def measure(
    command: Sequence[str | Path], environment: Mapping[str, str], directory: Path, limit_seconds: float | None = None
) -> tuple[Measured, str]:
    """Run to the end, or to the limit; also what it printed. Raises `RuntimeError` where it fails."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        start = time.monotonic()
        process = subprocess.Popen(
            [str(part) for part in command],
            env={"PATH": os.environ["PATH"], "HOME": str(directory), **environment},
            cwd=directory,
            stdout=out,
            stderr=errors,
            start_new_session=True,
        )
        stopped = threading.Event()

        def stop() -> None:
            stopped.set()
            os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(limit_seconds or threading.TIMEOUT_MAX, stop)
        timer.daemon = True
        timer.start()
        # Its own children are in the usage too, once it has waited for them.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - start
        timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        measured = Measured(seconds, usage.ru_utime + usage.ru_stime, stopped.is_set())
        if process.returncode and not measured.stopped:
            errors.seek(0)
            said = errors.read().decode(errors="replace")[-3000:]
            raise RuntimeError(f"{' '.join(map(str, command))[:300]} ended with {process.returncode}: {said}")
        out.seek(0)
        return measured, out.read().decode(errors="replace")


def python(module: str, *arguments: str) -> list[str]:
    """The command of one of our own programs, which import `trainer` as its image does."""
    return [str(ROOT / ".venv/bin/python"), "-m", module, *arguments]


PYTHON_PATH = {"PYTHONPATH": f"{ROOT}:{ROOT / 'images/trainer'}"}


def result(printed: str) -> dict[str, Any]:
    """The JSON object that a program of ours prints last."""
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


def cpu_seconds(pids: Sequence[int]) -> float:
    """CPU that running processes and their children have used so far."""
    total = 0.0
    for pid in pids:
        process = psutil.Process(pid)
        for each in [process, *process.children(recursive=True)]:
            times = each.cpu_times()
            total += times.user + times.system
    return total
