"""How a command of the trainer image can fail; each kind has its exit code (docs/contracts.md)."""

from __future__ import annotations

from typing import ClassVar


class TrainerError(Exception):
    """A failure whose message names the thing, the cause and the next step. The bare class means a bug of ours."""

    exit_code: ClassVar[int] = 70
    kind: ClassVar[str] = "internal"


class DataError(TrainerError):
    """The dataset cannot be snapshotted or trained on; trying again changes nothing."""

    exit_code = 65
    kind = "data"


class UnavailableError(TrainerError):
    """S3 or MLflow could not be reached or did not answer; trying again may help."""

    exit_code = 69
    kind = "unavailable"


class GpuError(TrainerError):
    """There is no usable GPU where one is asked for."""

    exit_code = 71
    kind = "gpu"


class ConfigError(TrainerError):
    """The environment is wrong: a variable, a key, a bucket that is not there."""

    exit_code = 78
    kind = "config"


class InterruptedRun(TrainerError):
    """The run was asked to stop (SIGTERM)."""

    exit_code = 143
    kind = "interrupted"
