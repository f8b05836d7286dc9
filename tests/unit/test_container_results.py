"""How a container's end is judged, and what of its result file is believed."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest

from include.container_results import RESULT_BYTES, ContainerFailure, Exit, judge, read_result


class Archive:
    """Docker's answer to `get_archive`, with one member."""

    def __init__(self, content: bytes, **member: Any) -> None:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            info = tarfile.TarInfo("result.json")
            info.size = len(content)
            for key, value in member.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(content))
        self._raw = buffer.getvalue()

    def get_archive(self, container_id: str, path: str) -> tuple[Iterator[bytes], dict[str, Any]]:
        return iter([self._raw]), {}


def error(kind: str, message: str) -> dict[str, Any]:
    return {"error": {"kind": kind, "message": message}}


def failure(ended: Exit, result: dict[str, Any] | None) -> ContainerFailure:
    with pytest.raises(ContainerFailure) as caught:
        judge(ended, result, "airlock-digits-train-1", 512 << 20)
    return caught.value


@pytest.mark.parametrize(
    ("code", "kind", "retryable"),
    [
        (65, "data", False),
        (69, "unavailable", True),
        (70, "internal", True),
        (71, "gpu", False),
        (78, "config", False),
        (143, "interrupted", True),
    ],
)
def test_an_exit_code_says_whether_to_retry_and_the_container_says_why(code: int, kind: str, retryable: bool) -> None:
    found = failure(Exit(code), error(kind, "class 'cat' has one picture; add nine"))
    assert (found.kind, found.retryable, found.exit_code) == (kind, retryable, code)
    assert str(found) == "class 'cat' has one picture; add nine"


@pytest.mark.parametrize("ended", [Exit(65), Exit(70, out_of_memory=True)])
def test_what_a_failed_container_left_beside_its_error_is_handed_on(ended: Exit) -> None:
    assert failure(ended, {**error("data", "one class"), "run_id": "abc"}).result["run_id"] == "abc"
    assert failure(ended, None).result == {}


def test_a_memory_kill_names_the_limit_and_is_retried() -> None:
    found = failure(Exit(137, out_of_memory=True), None)
    assert "512 MiB" in str(found)
    assert found.retryable


def test_a_kill_of_a_worker_process_is_a_memory_kill_whatever_the_code() -> None:
    assert failure(Exit(70, out_of_memory=True), error("internal", "DataLoader worker died")).kind == "memory"


def test_an_unknown_code_is_a_bug_that_may_go_away() -> None:
    found = failure(Exit(3), None)
    assert (found.kind, found.retryable) == ("internal", True)
    assert "code 3" in str(found)


@pytest.mark.parametrize("result", [None, error("internal", "half done")])
def test_a_good_end_without_a_result_is_a_failure(result: dict[str, Any] | None) -> None:
    assert "left no result" in str(failure(Exit(0), result))


def test_a_result_is_read_as_json() -> None:
    assert read_result(Archive(b'{"run_id": "a"}'), "c") == {"run_id": "a"}


@pytest.mark.parametrize(
    ("archive", "words"),
    [
        (Archive(b"\x80\x04."), "is not JSON"),
        (Archive(b'{"accuracy": NaN}'), "NaN"),
        (Archive(b"[1]"), "not an object"),
        (Archive(b'"' + b"x" * 2 * RESULT_BYTES + b'"'), "larger"),
        (Archive(b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "not a plain file"),
        (Archive(b"", type=tarfile.DIRTYPE), "not a plain file"),
    ],
    ids=["pickle", "NaN", "list", "too large", "link", "folder"],
)
def test_what_is_no_result_is_refused_by_name(archive: Archive, words: str) -> None:
    with pytest.raises(ContainerFailure, match=words):
        read_result(archive, "c")
