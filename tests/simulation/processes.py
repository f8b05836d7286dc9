"""Processes that act on one reality at once, each interrupted at every effect: who goes on is drawn, so a seed replays.

One runs at a time, as a greenlet; at each of its points another may go on, or it dies, or it stalls. Time passes only
while all wait.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import greenlet

from tests.simulation.reality import Killed, Reality

STALL_SECONDS = 200


@dataclass(eq=False)
class Process:
    """One process; what is not `mortal` is no deployer, and neither dies nor stalls."""

    name: str
    wakes_at: datetime
    thread: greenlet.greenlet
    mortal: bool = True


@dataclass
class Processes:
    """Everything that runs. `danger` is the chance of a death or a stall at each point."""

    reality: Reality
    draw: random.Random
    danger: float
    check: Callable[[], None]
    alive: list[Process] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._hub = greenlet.getcurrent()
        self._current: Process | None = None
        self.reality.point = self._point
        self.reality.pass_time = self.sleep

    def start(self, name: str, program: Callable[[], None], after_seconds: float = 0, *, mortal: bool = True) -> None:
        """Begin a program; `program` is expected to catch what it expects."""
        thread = greenlet.greenlet(program, parent=self._hub)
        self.alive.append(Process(name, self._after(after_seconds), thread, mortal))

    def run(self) -> None:
        """Until all have ended."""
        while self.alive:
            ready = [process for process in self.alive if process.wakes_at <= self.reality.now]
            if not ready:
                self.reality.now = min(process.wakes_at for process in self.alive)
                self.check()
                continue
            self._go_on(self.draw.choice(ready))

    def sleep(self, seconds: float) -> None:
        """The present process waits."""
        if self._current is None:
            self.reality.now += timedelta(seconds=seconds)
            return
        self._current.wakes_at = self._after(seconds)
        self._hub.switch()

    def say(self, words: str) -> None:
        """A line of the history."""
        name = self._current.name if self._current else "world"
        self.log.append(f"{self.reality.now:%H:%M:%S.%f} {name}: {words}")

    def _point(self) -> None:
        process = self._current
        if process is None:
            return
        self.check()
        if process.mortal and self.draw.random() < self.danger:
            if self.draw.random() < 0.3:
                self.say("stalls")
                process.wakes_at = self._after(STALL_SECONDS)
            else:
                self.say("is killed")
                raise Killed
        self._hub.switch()

    def _go_on(self, process: Process) -> None:
        self._current = process
        try:
            process.thread.switch()
        except Killed:
            pass
        finally:
            self._current = None
        if process.thread.dead:
            self.alive.remove(process)

    def _after(self, seconds: float) -> datetime:
        return self.reality.now + timedelta(seconds=seconds)
