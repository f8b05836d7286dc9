from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from trainer.errors import GpuError


class Host:
    """A host with a working GPU, in which tests break parts; `check` is the module that looks at it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
        self.cuda_of_driver: tuple[int, int] | None = (13, 0)
        self.failure: Exception | None = None
        self.version = directory / "version"
        self.version.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue Sep 23 2025\n")
        self.device = directory / "nvidiactl"
        self.device.touch()
        gpu = SimpleNamespace(name="NVIDIA L4", total_memory=23 << 30)
        self.torch = SimpleNamespace(
            __version__="2.13.0+cu130",
            version=SimpleNamespace(cuda="13.0"),
            zeros=self._zeros,
            cuda=SimpleNamespace(device_count=lambda: 1, get_device_properties=lambda _index: gpu),
        )
        monkeypatch.setitem(sys.modules, "torch", self.torch)
        monkeypatch.delitem(sys.modules, "trainer.check", raising=False)
        self.check: Any = importlib.import_module("trainer.check")
        monkeypatch.setattr(self.check, "DRIVER_VERSION", self.version)
        monkeypatch.setattr(self.check, "DRIVER_DEVICE", self.device)
        monkeypatch.setattr(self.check, "_cuda_of_driver", lambda: self.cuda_of_driver)

    def complaint(self) -> str:
        """The words with which the check fails."""
        with pytest.raises(GpuError) as caught:
            self.check.check("cuda")
        return str(caught.value)

    def _zeros(self, *_size: int, device: str) -> Any:
        assert device == "cuda"
        if self.failure:
            raise self.failure
        return SimpleNamespace(item=lambda: 0.0)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    return Host(monkeypatch, tmp_path)


def test_a_gpu_that_works_is_told_with_its_memory(host: Host) -> None:
    result = host.check.check("cuda")
    assert result["gpus"] == [{"name": "NVIDIA L4", "memory_bytes": 23 << 30}]
    assert result["driver"] == "580.95.05"
    assert "NVIDIA L4" in result["message"]


def test_a_gpu_that_works_needs_none_of_the_usual_files(host: Host) -> None:
    host.version.unlink()
    host.device.unlink()
    assert host.check.check("cuda")["driver"] is None


def test_the_processor_is_there_without_an_import_of_pytorch(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # its import fails
    monkeypatch.setattr(host.check, "version", {"torch": "2.13.0+cpu"}.__getitem__)
    result = host.check.check("cpu")
    assert (result["device"], result["gpus"], result["torch"]) == ("cpu", [], "2.13.0+cpu")


def test_the_cpu_build_of_pytorch_is_named(host: Host) -> None:
    host.torch.version.cuda = None
    assert "CPU build of PyTorch (2.13.0+cu130)" in host.complaint()


def test_no_driver_is_named(host: Host) -> None:
    host.failure = RuntimeError("Found no NVIDIA driver on your system")
    host.version.unlink()
    host.device.unlink()
    host.cuda_of_driver = None
    said = host.complaint()
    assert "no NVIDIA driver" in said
    assert "Install the driver" in said


def test_a_container_without_the_device_names_the_toolkit(host: Host) -> None:
    host.failure = RuntimeError("No CUDA GPUs are available")
    host.device.unlink()
    host.cuda_of_driver = None
    said = host.complaint()
    assert "580.95.05" in said
    assert "nvidia-ctk runtime configure" in said


def test_a_container_without_the_library_names_the_toolkit(host: Host) -> None:
    host.failure = RuntimeError("Found no NVIDIA driver on your system")
    host.cuda_of_driver = None
    said = host.complaint()
    assert "libcuda.so.1" in said
    assert "toolkit is missing or too old" in said


def test_a_driver_that_is_too_old_is_told_with_both_versions(host: Host) -> None:
    host.failure = RuntimeError("The NVIDIA driver on your system is too old")
    host.cuda_of_driver = (12, 4)
    said = host.complaint()
    assert "supports CUDA 12.4" in said
    assert "built for CUDA 13.0" in said
    assert "Update the driver" in said


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: CUDA-capable device(s) is/are busy or unavailable",
        "CUDA error: no kernel image is available for execution on the device",
        "CUDA out of memory. Tried to allocate 2.00 MiB.",
    ],
)
def test_a_gpu_that_is_there_and_fails_is_told_in_pytorchs_words(host: Host, words: str) -> None:
    host.failure = RuntimeError(f"{words}\nCUDA kernel errors might be asynchronously reported")
    said = host.complaint()
    assert said.endswith(f"or set `device: cpu` in the project. PyTorch says: {words}")
    assert "nvidia-smi" in said
