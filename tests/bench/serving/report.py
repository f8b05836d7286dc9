"""The tables of docs/benchmarks.md: every ratio is the median over the rounds, with its range."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from tests.bench.serving.load import percentile
from tests.bench.serving.rows import Figures, Overload, Speed

OURS = "Airlock"
GOAL_OF_CEILING = 0.9
GOAL_START_SECONDS, GOAL_START_RATIO = 2.0, 3.0
GOAL_OF_MEMORY = 1 / 3
GOAL_OF_CAPACITY, GOAL_REFUSED_MS = 0.9, 50.0
GOALS_OF_RATE = {
    "FastAPI + Ultralytics": {64: 3.0, 224: 2.0},
    "the faster of LitServe and BentoML": {64: 1.2, 224: 1.0},
}


def speed_tables(found: Speed) -> str:
    """Figures of each, then the goals."""
    ours = found.contestants[OURS]
    head = (
        f"{found.size} px: | served a second, 8 clients | p50 | p95 | p99, ms | one client, p50 ms | CPU ms a request "
        "| resident MiB |\n|---|---|---|---|---|---|---|---|"
    )
    lines = [f"| {head}"]
    for name, each in found.contestants.items():
        p50, p95, p99 = (f"{value:.1f}" for value in each.percentiles())
        rate, alone, cpu = (f"{statistics.median(runs):.2f}" for runs in (each.rate, each.alone_ms, each.cpu_ms))
        lines.append(f"| {name} | {rate} | {p50} | {p95} | {p99} | {alone} | {cpu} | {each.memory_bytes >> 20} |")
    lines.append(f"| decode, preprocess and run in a loop | {statistics.median(found.ceiling):.2f} | | | | | | |")
    rivals = {name: each for name, each in found.contestants.items() if name != OURS}
    return "\n".join([*lines, "", GOAL_HEADER, *_goals(found, ours, rivals)])


GOAL_HEADER = "| what | against | goal | ratio (range; rounds) | met |\n|---|---|---|---|---|"


def _goals(found: Speed, ours: Figures, rivals: dict[str, Figures]) -> Iterable[str]:
    stock = next(name for name in rivals if name.startswith("FastAPI"))
    faster = max((name for name in rivals if name != stock), key=lambda name: statistics.median(rivals[name].rate))
    for name, goals in zip((stock, faster), GOALS_OF_RATE.values(), strict=True):
        no_later = ours.percentiles()[2] <= rivals[name].percentiles()[2]
        what = f"{found.size} px: served a second, p99 {'no' if no_later else '**is**'} later"
        yield line(what, name, goals[found.size], ratios(ours.rate, rivals[name].rate), also=no_later)
    for name, each in rivals.items():
        yield line(f"{found.size} px: one client's p50", name, 1.0, ratios(each.alone_ms, ours.alone_ms))
    of_ceiling = ratios(ours.rate, found.ceiling)
    yield line(f"{found.size} px: share of the ceiling", "the loop", GOAL_OF_CEILING, of_ceiling)
    share = [ours.memory_bytes / rivals[stock].memory_bytes]
    yield line(f"{found.size} px: resident memory", stock, GOAL_OF_MEMORY, share, at_most=True)


def start_table(seconds: dict[str, list[float]]) -> str:
    """Seconds to the first answer."""
    lines = ["| from `docker run` to the first prediction | seconds, median (range; runs) |", "|---|---|"]
    for name, each in seconds.items():
        lines.append(f"| {name} | {statistics.median(each):.2f} ({min(each):.2f}–{max(each):.2f}; {len(each)}) |")
    stock = next(name for name in seconds if name.startswith("FastAPI"))
    goals = [
        line("start, seconds", "–", GOAL_START_SECONDS, seconds[OURS], at_most=True),
        line("start", stock, GOAL_START_RATIO, ratios(seconds[stock], seconds[OURS])),
    ]
    return "\n".join([*lines, "", GOAL_HEADER, *goals])


def overload_lines(words: str, found: Overload) -> str:
    """What came of four times its capacity."""
    refused = percentile(found.answers.refused, 99)
    memory = ", ".join(f"{each >> 20}" for each in found.memory_bytes)
    met = found.share >= GOAL_OF_CAPACITY and refused <= GOAL_REFUSED_MS and not found.answers.failed
    return (
        f"| {words}, capacity {found.capacity:.1f} | {found.answers.rate:.1f} ({found.share:.0%}) "
        f"| {found.answers.percentile(50):.0f} / {found.answers.percentile(99):.0f} "
        f"| {percentile(found.answers.refused, 50):.1f} / {refused:.1f} / {1000 * max(found.answers.refused):.1f} "
        f"| {found.answers.failed} | {memory} | {'yes' if met else '**no**'} |"
    )


OVERLOAD_HEADER = (
    "| four times the capacity | served a second | served: p50 / p99 ms | 503: p50 / p99 / most ms "
    "| failed otherwise | resident MiB before, amid, after | met |\n|---|---|---|---|---|---|---|"
)


def line(what: str, against: str, goal: float, found: Sequence[float], at_most: bool = False, also: bool = True) -> str:
    """A line under GOAL_HEADER."""
    middle = statistics.median(found)
    met = also and (middle <= goal if at_most else middle >= goal)
    spread = (
        f"**{middle:.2f}** ({min(found):.2f}–{max(found):.2f}; {len(found)})" if len(found) > 1 else f"**{middle:.2f}**"
    )
    return f"| {what} | {against} | {'≤' if at_most else '≥'} {goal:.2g} | {spread} | {'yes' if met else '**no**'} |"


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Of each round."""
    return [one / other for one, other in zip(ours, theirs, strict=True)]
