"""Is the accelerator that the project asks for usable? If not, which part is missing."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from trainer.errors import GpuError

DRIVER_VERSION = Path("/proc/driver/nvidia/version")
DRIVER_DEVICE = Path("/dev/nvidiactl")


def check(device: str) -> Mapping[str, Any]:
    """Result of the command `check`.

    Raises:
        GpuError: `device` is `cuda` and no GPU can be used; the message names what is missing.
    """
    if device == "cuda":
        _require_gpu()
        torch.zeros(1, device="cuda")  # a GPU that is there may still be broken or taken
    count = torch.cuda.device_count() if device == "cuda" else 0
    gpus = [torch.cuda.get_device_properties(index) for index in range(count)]
    names = ", ".join(gpu.name for gpu in gpus)
    return {
        "device": device,
        "gpus": [{"name": gpu.name, "memory_bytes": gpu.total_memory} for gpu in gpus],
        "driver": _driver(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "message": f"{count} GPU(s): {names}" if gpus else "trains on the processor, as the project asks",
    }


def _require_gpu() -> None:
    if torch.version.cuda is None:
        raise GpuError(
            f"this trainer image holds the CPU build of PyTorch ({torch.__version__}). "
            "Build it with CUDA, or set `device: cpu` in the project."
        )
    if _driver() is None:
        raise GpuError(
            "no NVIDIA driver on this host: /proc/driver/nvidia is absent. "
            "Install the driver and check with `nvidia-smi`, or set `device: cpu` in the project."
        )
    if not DRIVER_DEVICE.exists():
        raise GpuError(
            "the host has an NVIDIA driver, but the container sees no GPU device. Install the NVIDIA container "
            "toolkit, run `nvidia-ctk runtime configure --runtime=docker` and restart Docker."
        )
    supported = _cuda_of_driver()
    wanted = tuple(int(part) for part in torch.version.cuda.split(".")[:2])
    if supported is None:
        raise GpuError(
            "the container has a GPU device but not the driver's library libcuda.so.1. "
            "The NVIDIA container toolkit is missing or too old: update it and restart Docker."
        )
    if supported[0] < wanted[0]:
        raise GpuError(
            f"the driver {_driver()} supports CUDA {supported[0]}.{supported[1]}, PyTorch {torch.__version__} is built "
            f"for CUDA {torch.version.cuda}. Update the driver, or choose a trainer variant for the older CUDA."
        )
    if not torch.cuda.is_available() or not torch.cuda.device_count():
        raise GpuError(
            f"the driver {_driver()} works but offers no GPU to this container. "
            "Is another process holding it, or is NVIDIA_VISIBLE_DEVICES empty?"
        )


def _driver() -> str | None:
    """Version of the host's kernel driver; it is visible in every container."""
    try:
        words = DRIVER_VERSION.read_text().splitlines()[0].split()
    except (OSError, IndexError):
        return None
    return next((word for word in words if word[0].isdigit() and "." in word), "unknown")


def _cuda_of_driver() -> tuple[int, int] | None:
    """The newest CUDA that the driver's library supports."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version = ctypes.c_int()
    if library.cuDriverGetVersion(ctypes.byref(version)):
        return None
    return version.value // 1000, version.value % 1000 // 10
