"""What the container uses of its machine, by the names that MLflow's "System metrics" page knows."""

from __future__ import annotations

import shutil
import subprocess
import time
from statistics import fmean

import psutil

MEGABYTE = 1_000_000
QUERY = "utilization.gpu,memory.used"
GPU_SECONDS = 10.0
GPU_COLUMNS = {"utilization_percentage": 1.0, "memory_usage_megabytes": (1 << 20) / MEGABYTE}  # by QUERY's units


class Usage:
    """Samples of processor, memory and, where there is one, GPU."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._nvidia_smi = shutil.which("nvidia-smi")
        self._gpu_samples: list[dict[str, float]] = []
        self._next_look = 0.0
        psutil.cpu_percent()  # the first call only starts the clock

    def look(self) -> None:
        """To be called while the GPUs work: they tell what they did in the last second alone. Looks every 10 s."""
        if self._nvidia_smi and time.monotonic() >= self._next_look:
            self._gpu_samples.append(self._gpus())
            self._next_look = time.monotonic() + GPU_SECONDS

    def sample(self) -> dict[str, float]:
        """Use since the last sample (processor, GPUs) and now (memory of the process)."""
        looks, self._gpu_samples, self._next_look = self._gpu_samples, [], 0.0
        names = sorted({name for look in looks for name in look})
        return {
            "system/cpu_utilization_percentage": psutil.cpu_percent(),
            "system/process_memory_megabytes": self._process.memory_info().rss / MEGABYTE,
            **{name: fmean(look[name] for look in looks if name in look) for name in names},
        }

    def _gpus(self) -> dict[str, float]:
        if not self._nvidia_smi:
            return {}
        command = [self._nvidia_smi, f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"]
        try:
            lines = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.splitlines()
        except (OSError, subprocess.SubprocessError):
            return {}  # measurements are no reason to fail
        return {
            f"system/gpu_{index}_{name}": float(cell) * factor
            for index, line in enumerate(lines)
            for (name, factor), cell in zip(GPU_COLUMNS.items(), line.split(","), strict=False)
            if cell.strip().isdecimal()  # a cell may be `[N/A]`, such as the utilization of a GPU with MIG
        }
