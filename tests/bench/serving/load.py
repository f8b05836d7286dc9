"""The clients: some that each ask again as soon as they are answered, or requests at a rate whatever the answers."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus

import aiohttp

TIMEOUT = aiohttp.ClientTimeout(total=60)


@dataclass(frozen=True)
class Question:
    """One request, always the same."""

    url: str
    body: bytes
    headers: Mapping[str, str]


@dataclass
class Answers:
    """What came of them; latencies in seconds."""

    seconds: float = 0.0
    served: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    """503s."""
    failed: int = 0
    """Any other status, and connections that broke."""

    @property
    def rate(self) -> float:
        """Served in a second."""
        return len(self.served) / self.seconds

    def percentile(self, percent: int) -> float:
        """Of the served, in milliseconds."""
        return percentile(self.served, percent)


def percentile(latencies: list[float], percent: int) -> float:
    """In milliseconds; 0 of none."""
    if len(latencies) < 2:
        return 1000 * sum(latencies)
    return 1000 * statistics.quantiles(latencies, n=100, method="inclusive")[percent - 1]


def closed(question: Question, clients: int, seconds: float) -> Answers:
    """So many clients, each with a connection of its own that it keeps."""
    return asyncio.run(_closed(question, clients, seconds))


def at_rate(question: Question, rate: float, seconds: float) -> Answers:
    """So many requests a second, evenly, each at its time, answered or not."""
    return asyncio.run(_at_rate(question, rate, seconds))


async def _closed(question: Question, clients: int, seconds: float) -> Answers:
    answers = Answers()
    async with _session() as session:
        began = time.perf_counter()

        async def one() -> None:
            while time.perf_counter() - began < seconds:
                await _ask(session, question, answers)

        await asyncio.gather(*(one() for _ in range(clients)))
        answers.seconds = time.perf_counter() - began
    return answers


async def _at_rate(question: Question, rate: float, seconds: float) -> Answers:
    answers = Answers()
    async with _session() as session, asyncio.TaskGroup() as asked:
        began = time.perf_counter()
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            asked.create_task(_ask(session, question, answers))
        answers.seconds = time.perf_counter() - began
    return answers


@asynccontextmanager
async def _session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=TIMEOUT) as session:
        yield session


async def _ask(session: aiohttp.ClientSession, question: Question, answers: Answers) -> None:
    began = time.perf_counter()
    try:
        async with session.post(question.url, data=question.body, headers=question.headers) as answer:
            await answer.read()
            status = answer.status
    except aiohttp.ClientError:
        status = 0
    latency = time.perf_counter() - began
    if status == HTTPStatus.OK:
        answers.served.append(latency)
    elif status == HTTPStatus.SERVICE_UNAVAILABLE:
        answers.refused.append(latency)
    else:
        answers.failed += 1
