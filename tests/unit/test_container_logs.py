"""Log lines, each once, over any number of streams."""

from __future__ import annotations

import pytest

from include.container_logs import LINE_BYTES, LogLines


@pytest.fixture
def seen() -> list[str]:
    return []


def message(second: int, text: str) -> bytes:
    return f"2026-11-23T17:14:{second:02}.000000000Z {text}".encode()


def test_a_stream_opened_again_repeats_no_line(seen: list[str]) -> None:
    lines = LogLines(seen.append)
    assert lines.since is None
    for stream in (["one\n", "two\n"], ["two\n", "three\n"]):
        lines.begin_stream()
        for text in stream:
            lines.add(message(["one\n", "two\n", "three\n"].index(text) + 10, text))
    assert seen == ["one", "two", "three"]
    assert lines.since == 1795454052


def test_a_long_line_in_pieces_of_one_moment_comes_out_whole_and_apart_from_the_next(seen: list[str]) -> None:
    lines = LogLines(seen.append)
    for second, text in ((1, "a" * 100), (1, "b\n"), (2, "next\n")):
        lines.add(message(second, text))
    assert seen == ["a" * 100 + "b", "next"]


def test_a_line_that_was_cut_off_by_the_end_of_a_stream_comes_out_once_and_whole(seen: list[str]) -> None:
    lines = LogLines(seen.append)
    for pieces in (((1, "one\n"), (2, "tw")), ((1, "one\n"), (2, "tw"), (2, "o\n"))):
        lines.begin_stream()
        for second, text in pieces:
            lines.add(message(second, text))
    assert seen == ["one", "two"]


def test_lines_of_two_streams_whose_moments_are_out_of_order_are_not_lost(seen: list[str]) -> None:
    lines = LogLines(seen.append)
    lines.add(message(2, "of stderr\n"))
    lines.add(message(1, "of stdout\n"))
    assert seen == ["of stderr", "of stdout"]


def test_a_line_that_never_ends_comes_out_in_parts(seen: list[str]) -> None:
    lines = LogLines(seen.append)
    for second in range(5):
        lines.add(message(second, "a" * (LINE_BYTES // 4)))
    assert len(seen[0]) == LINE_BYTES


def test_a_last_line_without_an_end_is_not_lost(seen: list[str]) -> None:
    lines = LogLines(seen.append)
    lines.add(message(1, "Killed"))
    lines.flush()
    assert seen == ["Killed"]


def test_of_a_progress_bar_the_newest_state_is_kept(seen: list[str]) -> None:
    LogLines(seen.append).add(message(1, "10%\r50%\r100%\n"))
    assert seen == ["100%"]


def test_docker_s_own_words_in_the_stream_are_handed_on_and_disturb_nothing(seen: list[str]) -> None:
    lines = LogLines(seen.append)
    lines.add(message(10, "one\n"))
    lines.add(b"Error grabbing logs: invalid character in string\n")
    lines.add(message(11, "two\n"))
    assert seen == ["one", "Docker: Error grabbing logs: invalid character in string", "two"]
    assert lines.since == 1795454051
