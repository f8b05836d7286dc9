"""What is measured: speed in interleaved rounds, the start, memory, more requests than can be served, batches."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from include.haproxy_config import FRONT_PORT
from include.releases import Route
from tests.bench.serving.arena import SETTINGS, Arena
from tests.bench.serving.contestants import CLIENT_CORE, Contestant, Running, running
from tests.bench.serving.load import Answers, at_rate, closed, percentile
from tests.integration.docker_engine import wait_until
from tests.integration.front_door_parts import front_door, unique_project

CLIENTS = 8
WARM_SECONDS = 2.0
LOAD_SECONDS = 5.0
ALONE_SECONDS = 3.0
OVERLOAD = 4
OVERLOAD_SECONDS = 20.0


@dataclass
class Figures:
    """Of one contestant, one entry a round."""

    rate: list[float] = field(default_factory=list)
    """Served in a second, by eight clients."""
    latencies: list[float] = field(default_factory=list)
    """Of all rounds, with eight clients, in seconds."""
    alone_ms: list[float] = field(default_factory=list)
    """The median of one client's requests."""
    cpu_ms: list[float] = field(default_factory=list)
    """CPU milliseconds for each request served."""
    memory_bytes: int = 0

    def percentiles(self) -> tuple[float, float, float]:
        """p50, p95 and p99 in milliseconds."""
        p50, p95, p99 = (percentile(self.latencies, percent) for percent in (50, 95, 99))
        return p50, p95, p99


@dataclass(frozen=True)
class Speed:
    """The rounds of all contestants with one model."""

    size: int
    ceiling: list[float]
    contestants: dict[str, Figures]


def speed(arena: Arena, size: int, rounds: int, rivals: list[Contestant], say: Callable[[str], None]) -> Speed:
    """Every contestant in every round, one after the other on the same core; those that wait are paused."""
    found = Speed(size, [], {})
    with ExitStack() as stack:
        boxes = []
        for each in [arena.ours(size), *rivals]:
            box = stack.enter_context(running(arena.client, each, arena.models(size), arena.network))
            say(f"{each.name} answers {box.wait_until_it_answers()!r} at {size} px")
            closed(box.question, CLIENTS, WARM_SECONDS)
            arena.client.pause(box.id)
            boxes.append(box)
        for number in range(1, rounds + 1):
            found.ceiling.append(float(json.loads(arena.inside(size, "ceiling", LOAD_SECONDS, "0"))))
            for box in boxes:
                _round(box, found.contestants.setdefault(box.contestant.name, Figures()))
            rates = {name: round(each.rate[-1], 1) for name, each in found.contestants.items()}
            say(f"{size} px, round {number}: ceiling {found.ceiling[-1]:.1f}, {rates}")
    return found


def _round(box: Running, figures: Figures) -> None:
    with box.awake():
        before = box.cpu_seconds()
        answers = closed(box.question, CLIENTS, LOAD_SECONDS)
        used = box.cpu_seconds() - before
        alone = closed(box.question, 1, ALONE_SECONDS)
        for each in (answers, alone):
            if each.failed or each.refused:
                raise RuntimeError(f"{box.contestant.name}: {each.failed} failed, {len(each.refused)} refused")
        figures.rate.append(answers.rate)
        figures.latencies += answers.served
        figures.cpu_ms.append(1000 * used / len(answers.served))
        figures.alone_ms.append(alone.percentile(50))
        figures.memory_bytes = box.memory_bytes()


def tuned(arena: Arena, size: int, say: Callable[[str], None]) -> list[Contestant]:
    """LitServe and BentoML, each with the settings that served most and answered one client first, in a short run."""
    best = []
    for name, settings in SETTINGS.items():
        rates: dict[str, float] = {}
        alone: dict[str, float] = {}
        for words, chosen in settings.items():
            each = arena.rival(name, size).with_settings(words, chosen)
            with running(arena.client, each, arena.models(size), arena.network) as box:
                box.wait_until_it_answers()
                closed(box.question, CLIENTS, WARM_SECONDS)
                rates[words] = closed(box.question, CLIENTS, LOAD_SECONDS).rate
                alone[words] = closed(box.question, 1, ALONE_SECONDS).percentile(50)
        found = ", ".join(f"{words}: {rate:.1f}/s, {alone[words]:.1f} ms" for words, rate in rates.items())
        say(f"{name} at {size} px: {found}")
        for words in dict.fromkeys((max(rates, key=rates.__getitem__), min(alone, key=alone.__getitem__))):
            best.append(arena.rival(name, size).with_settings(words, settings[words]))
    return best


def starts(arena: Arena, size: int, rounds: int, rivals: list[Contestant]) -> dict[str, list[float]]:
    """Seconds from `docker run` to the first answer, on all cores: our weights in S3, the rivals' on the disk."""
    seconds: dict[str, list[float]] = {}
    ours = arena.ours(size)
    for _ in range(rounds):
        for each in [ours, *rivals]:
            began = time.perf_counter()
            with running(arena.client, each, arena.models(size), arena.network, cores=None) as box:
                box.wait_until_it_answers()
                seconds.setdefault(each.name, []).append(time.perf_counter() - began)
    return seconds


@dataclass(frozen=True)
class Overload:
    """What a server does when four times as many ask as it can serve."""

    capacity: float
    answers: Answers
    memory_bytes: list[int]
    """Before, after half of it and at its end."""

    @property
    def share(self) -> float:
        """Of its capacity that it still serves."""
        return self.answers.rate / self.capacity


def overload(arena: Arena, size: int, through_the_door: bool) -> Overload:
    """Of our own server, alone or behind HAProxy, after its capacity was measured with eight clients."""
    name = unique_project()
    with (
        TemporaryDirectory() as directory,
        running(arena.client, arena.ours(size), arena.models(size), arena.network, name=f"{name}-blue-1") as box,
        front_door(arena.client, arena.network, Path(directory) / "haproxy", {name: 1}) as door,
    ):
        box.wait_until_it_answers()
        door.door.route(name, Route("blue"))
        wait_until(lambda: door.door.server(name, "blue", 1).up)
        question = box.question
        if through_the_door:
            # On the client's core, and not by the published port, behind which Docker copies every byte once more.
            arena.client.update_container(door.container_id, cpuset_cpus=CLIENT_CORE)
            question = replace(question, url=f"http://{door.address()}:{FRONT_PORT}/{name}/predict")
        closed(question, CLIENTS, WARM_SECONDS)
        capacity = closed(question, CLIENTS, LOAD_SECONDS).rate
        at_rate(question, OVERLOAD * capacity, WARM_SECONDS)
        memory = [box.memory_bytes()]
        both = []
        for _ in range(2):
            both.append(at_rate(question, OVERLOAD * capacity, OVERLOAD_SECONDS / 2))
            memory.append(box.memory_bytes())
    joined = Answers(
        seconds=sum(each.seconds for each in both),
        served=[latency for each in both for latency in each.served],
        refused=[latency for each in both for latency in each.refused],
        failed=sum(each.failed for each in both),
    )
    return Overload(capacity, joined, memory)


def batches(arena: Arena, size: int, rounds: int, cores: str) -> dict[str, float]:
    """Pictures a second by how many go through the model at once, over those of one at a time."""
    found = [json.loads(arena.inside(size, "batches", 1.0, cores)) for _ in range(rounds)]
    return {number: statistics.median(each[number] / each["1"] for each in found) for number in found[0]}
