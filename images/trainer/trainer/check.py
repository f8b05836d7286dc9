"""Is the accelerator that the project asks for usable? If not, which part is missing."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trainer.errors import GpuError

DRIVER_VERSION = Path("/proc/driver/nvidia/version")
DRIVER_DEVICE = Path("/dev/nvidiactl")


def check(device: str) -> Mapping[str, Any]:
    """Result of the command `check`.

    Raises:
        GpuError: `device` is `cuda` and no GPU can be used; the message names what is missing.
    """
    return {"device": device, "driver": _driver(), **(_gpus() if device == "cuda" else _no_gpu())}


def _no_gpu() -> Mapping[str, Any]:
    return {
        "gpus": [],
        "torch": version("torch"),  # without the seconds that its import takes
        "cuda": None,
        "message": "trains on the processor, as the project asks",
    }


def _gpus() -> Mapping[str, Any]:
    import torch

    _require_gpu(torch)
    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return {
        "gpus": [{"name": gpu.name, "memory_bytes": gpu.total_memory} for gpu in gpus],
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "message": f"{len(gpus)} GPU(s): {', '.join(gpu.name for gpu in gpus)}",
    }


def _require_gpu(torch: Any) -> None:
    if torch.version.cuda is None:
        raise GpuError(
            f"this trainer image holds the CPU build of PyTorch ({torch.__version__}). "
            "Build it with CUDA, or set `device: cpu` in the project."
        )
    try:
        torch.zeros(1, device="cuda").item()  # fetched back: a kernel's failure is told no earlier
    except Exception as error:  # of many classes, by PyTorch's version and by what is missing
        said = str(error).partition("\n")[0]
        raise GpuError(f"{_missing(torch)}, or set `device: cpu` in the project. PyTorch says: {said}") from error


def _missing(torch: Any) -> str:
    """Why PyTorch cannot use a GPU, and what to do. Asked only then: hosts such as WSL2 work without these files."""
    driver, supported = _driver(), _cuda_of_driver()
    if driver is None and supported is None:
        return (
            "no NVIDIA driver: there is neither /proc/driver/nvidia nor libcuda.so.1. Install the driver and the "
            "NVIDIA container toolkit on the host, check with `nvidia-smi`"
        )
    if supported is None and not DRIVER_DEVICE.exists():
        return (
            f"the host has the NVIDIA driver {driver}, but the container sees no GPU device. Install the NVIDIA "
            "container toolkit, run `nvidia-ctk runtime configure --runtime=docker` and restart Docker"
        )
    if supported is None:
        return (
            "the container has a GPU device but not the driver's library libcuda.so.1: the NVIDIA container toolkit "
            "is missing or too old. Update it and restart Docker"
        )
    if supported[0] < int(torch.version.cuda.split(".")[0]):
        return (
            f"the driver {driver or 'of this host'} supports CUDA {supported[0]}.{supported[1]}, PyTorch "
            f"{torch.__version__} is built for CUDA {torch.version.cuda}. Update the driver, choose a trainer variant "
            "for the older CUDA"
        )
    return (
        f"the driver {driver or 'of this host'} is there, but its GPU does not work for this container. See in "
        "`nvidia-smi` whether another process holds it, and whether NVIDIA_VISIBLE_DEVICES names it; free it"
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
