"""Rows about bringing a snapshot's content to a host."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from tests.bench.data import rivals
from tests.bench.data.arena import Arena, Dataset
from tests.bench.data.lab import Lab
from tests.bench.data.pairs import Client, Measured, duel
from tests.bench.data.report import Duel, Figure, Line

AGAIN_RUNS = 5
AGAIN_GOAL_SECONDS = 3.0
LINKS_GOAL_PER_SECOND = 20_000
"""The least that may be called tens of thousands."""


def small(lab: Lab) -> list[Line]:
    """A cold pull of small files."""
    data, arena = lab.few, lab.arena
    what = f"cold pull, {data.count:,} × {data.size >> 10} KiB"
    contenders = [
        ("the sequential `boto3` loop", 10.0, rivals.boto3_pull(arena, data)),
        ("`s5cmd`", 1.0, rivals.s5cmd_pull(arena, data)),
        ("`rclone copy`", 1.0, rivals.rclone_pull(arena, data)),
        ("`dvc pull`", 1.0, rivals.dvc_pull(arena, data)),
    ]
    return against(arena, what, ours(arena, data), contenders)


def packed(lab: Lab) -> list[Line]:
    """The same, where a host before this one has written packs."""
    data, arena = lab.few, lab.arena
    ours(arena, data, "packs")(None)  # the host before
    what = f"the same {data.count:,} files, packs present"
    contenders = [
        ("`s5cmd`", 5.0, rivals.s5cmd_pull(arena, data)),
        ("`rclone copy`", 5.0, rivals.rclone_pull(arena, data)),
    ]
    return against(arena, what, ours(arena, data, "packs"), contenders)


def large(lab: Lab) -> list[Line]:
    """A cold pull of large files."""
    data, arena = lab.large, lab.arena
    what = f"cold pull, {data.count} × {data.size >> 20} MiB"
    contenders = [
        ("`s5cmd`", 1.0, rivals.s5cmd_pull(arena, data)),
        ("`rclone copy`", 1.0, rivals.rclone_pull(arena, data)),
        ("`dvc pull`", 1.0, rivals.dvc_pull(arena, data)),
    ]
    return against(arena, what, ours(arena, data), contenders)


def again(lab: Lab) -> list[Line]:
    """A pull of what is there already, and a run's tree of links to it."""
    data, arena = lab.many, lab.arena
    with arena.scratch() as directory:
        command = ["pull", data.snapshot_id, str(directory / "cache")]
        arena.ours(command, data.buckets, directory)
        runs = [arena.ours(command, data.buckets, directory) for _ in range(AGAIN_RUNS)]
        linking = ["link", data.snapshot_id, str(directory / "cache"), str(directory / "runs")]
        links = [arena.ours(linking, data.buckets, directory)[1] for _ in range(AGAIN_RUNS)]
    seconds = [measured.seconds for measured, _ in runs]
    cpu = statistics.median(measured.cpu_seconds for measured, _ in runs)
    fetched = max(result["objects"] for _, result in runs)
    middle = statistics.median(seconds)
    value = (
        f"{fetched} fetched, {middle:.2f} s ({min(seconds):.2f}–{max(seconds):.2f}; {len(runs)} runs), {cpu:.1f} CPU s"
    )
    met = fetched == 0 and middle <= AGAIN_GOAL_SECONDS
    return [
        Figure(f"second pull, nothing changed, {data.count:,} files", "0 fetched, ≤ 3 s", value, met),
        _linked([result["files"] / result["link_seconds"] for result in links], data.count),
    ]


def _linked(rates: list[float], count: int) -> Figure:
    middle = statistics.median(rates)
    value = f"{middle:,.0f} a second ({min(rates):,.0f}–{max(rates):,.0f}; {len(rates)} runs)"
    goal = f"≥ {LINKS_GOAL_PER_SECOND:,} a second"
    return Figure(f"a run's tree of links, {count:,} files", goal, value, middle >= LINKS_GOAL_PER_SECOND)


def ours(arena: Arena, data: Dataset, *packs: str) -> Client:
    """Our own cold pull, with the word `packs` through packs."""

    def run(limit: float | None) -> Measured:
        with arena.scratch() as directory:
            command = ["pull", data.snapshot_id, str(directory / "cache"), *packs]
            measured, result = arena.ours(command, data.buckets, directory, limit)
            assert result["objects"] == data.count, result
            assert result["bytes"] == data.count * data.size, result
            rivals.check(measured, data, directory / "cache" / "files")
        return measured

    return run


def against(arena: Arena, what: str, own: Client, contenders: Sequence[tuple[str, float, Client]]) -> list[Line]:
    """A line for each contender; the bytes are those of one run more, through the counting proxy."""
    own_bytes = moved(arena, own)
    return [
        Duel(what, name, goal, duel(own, theirs), own_bytes, moved(arena, theirs)) for name, goal, theirs in contenders
    ]


def moved(arena: Arena, client: Client, limit: float | None = None) -> int:
    """Bytes between client and server in one run, in both directions."""
    with arena.counted() as traffic:
        client(limit)
    return traffic.bytes
