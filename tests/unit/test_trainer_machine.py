from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from trainer import machine
from trainer.machine import Usage


@pytest.fixture
def sample(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., dict[str, float]]:
    """What is sampled where `nvidia-smi` is the given shell script."""

    def sampled(script: str, looks: int = 1) -> dict[str, float]:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
        usage = Usage()
        for _ in range(looks):
            usage.look()
        return usage.sample()

    return sampled


def _gpus(sample: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in sample.items() if name.startswith("system/gpu_")}


def test_each_gpu_has_its_utilization_and_its_memory(sample: Callable[..., dict[str, float]]) -> None:
    assert _gpus(sample("echo '93, 1000'; echo '0, 4'")) == {
        "system/gpu_0_utilization_percentage": 93,
        "system/gpu_0_memory_usage_megabytes": pytest.approx(1048.576),
        "system/gpu_1_utilization_percentage": 0,
        "system/gpu_1_memory_usage_megabytes": pytest.approx(4.194304),
    }


def test_what_one_gpu_does_not_tell_hides_nothing_else(sample: Callable[..., dict[str, float]]) -> None:
    assert set(_gpus(sample("echo '[N/A], 1000'; echo '5, [Not Supported]'"))) == {
        "system/gpu_0_memory_usage_megabytes",
        "system/gpu_1_utilization_percentage",
    }


def test_an_nvidia_smi_that_fails_costs_only_the_gpus(sample: Callable[..., dict[str, float]]) -> None:
    measured = sample("echo 'No devices were found'; exit 6")
    assert _gpus(measured) == {}
    assert measured["system/process_memory_megabytes"] > 0


def test_what_a_gpu_did_is_the_mean_over_the_epoch_and_not_what_it_does_when_that_has_ended(
    sample: Callable[..., dict[str, float]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    busy = f"cd {tmp_path}; echo >>looks; echo $(wc -l <looks)0, 1000"
    assert _gpus(sample(busy, looks=3))["system/gpu_0_utilization_percentage"] == 10, "it is not asked at every batch"
    (tmp_path / "looks").unlink()
    monkeypatch.setattr(machine, "GPU_SECONDS", 0)
    assert _gpus(sample(busy, looks=3))["system/gpu_0_utilization_percentage"] == 20
