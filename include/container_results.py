"""What a task's container leaves behind: its exit code and its `result.json`; see docs/contracts.md."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import docker
import docker.errors

RESULT_PATH = "/results/result.json"
# Airflow keeps results in its database; a larger one is a mistake of the container's program.
RESULT_BYTES = 4 << 20

SIGKILLED, SIGTERMED = 137, 143
KINDS = {65: "data", 69: "unavailable", 70: "internal", 71: "gpu", 78: "config", SIGTERMED: "interrupted"}
NOT_RETRYABLE = frozenset({"data", "gpu", "config"})


class ContainerFailure(Exception):
    """A container did not do its work.

    `kind` is the contract's word for why (`memory` and `killed` too), `exit_code` None where it never ran;
    the message is the container's own sentence where it left one; `result` is all that it left.
    """

    def __init__(
        self, kind: str, message: str, exit_code: int | None = None, result: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.exit_code = exit_code
        self.result = result or {}

    @property
    def retryable(self) -> bool:
        """Whether the same container may well succeed another time."""
        return self.kind not in NOT_RETRYABLE


@dataclass(frozen=True)
class Exit:
    """How a container ended."""

    code: int
    out_of_memory: bool = False

    @property
    def from_outside(self) -> bool:
        """Whether somebody stopped it, rather than its own program or its memory limit."""
        return self.code in (SIGKILLED, SIGTERMED) and not self.out_of_memory


def read_result(client: docker.APIClient, container_id: str) -> dict[str, Any] | None:
    """The object in the container's `result.json`; None where there is no such file.

    Raises ContainerFailure where the file is too large or is no JSON object. Nothing in it is ever unpickled.
    """
    try:
        chunks, _ = client.get_archive(container_id, RESULT_PATH)
    except docker.errors.NotFound:
        return None
    raw = _only_file(_limited(chunks))
    try:
        # NaN is not JSON, and Airflow's database refuses it.
        result = json.loads(raw, parse_constant=_no_constant)
    except ValueError as error:
        raise _bad_result(f"is not JSON ({error})") from None
    if not isinstance(result, dict):
        raise _bad_result(f"holds a {type(result).__name__}, not an object")
    return result


def judge(ended: Exit, result: dict[str, Any] | None, name: str, memory_bytes: int) -> dict[str, Any]:
    """The result of a container that ended well. Raises ContainerFailure for any other."""
    error = (result or {}).get("error")
    own = error.get("message") if isinstance(error, dict) else None
    if ended.out_of_memory and ended.code != 0:  # it may have been a child whose end the program got over
        limit = f"its memory limit of {memory_bytes / 2**20:.0f} MiB was reached and the kernel killed it"
        advice = "lower the batch or raise the limit"
        raise ContainerFailure("memory", f"{name}: {limit}; {advice}", ended.code, result)
    if ended.code == 0:
        if result is None or error is not None:
            raise ContainerFailure(
                "internal", f"{name} ended well but left no result in {RESULT_PATH}; see its log above", 0
            )
        return result
    if ended.code == SIGKILLED:
        raise ContainerFailure("killed", f"{name} was killed (SIGKILL) by someone other than Airlock", ended.code)
    kind = KINDS.get(ended.code, "internal")
    raise ContainerFailure(kind, own or _plain_words(name, kind, ended.code), ended.code, result)


def _plain_words(name: str, kind: str, code: int) -> str:
    if kind == "interrupted":
        return f"{name} was stopped (SIGTERM) before it was done"
    return f"{name} ended with code {code} ({kind}) and left no message; see its log above"


def _limited(chunks: Any) -> bytes:
    read = bytearray()
    for chunk in chunks:
        read += chunk
        if len(read) > RESULT_BYTES + tarfile.RECORDSIZE:
            raise _bad_result(f"is larger than {RESULT_BYTES} bytes")
    return bytes(read)


def _only_file(archive: bytes) -> bytes:
    # "r:" and not "r": what is packed small could be unpacked large.
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
        member = tar.next()
        file = tar.extractfile(member) if member and member.isreg() else None
        if file is None:
            raise _bad_result("is not a plain file")
        return file.read()


def _no_constant(name: str) -> Any:
    raise ValueError(f"it holds {name}")


def _bad_result(cause: str) -> ContainerFailure:
    return ContainerFailure("internal", f"the container's {RESULT_PATH} {cause}")
