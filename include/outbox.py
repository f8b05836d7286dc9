"""Messages on their way to channels: each is tried until it is taken, and a dead channel holds up no other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict

from include.alert_channels import Channel
from include.alert_message import Message

FIRST_PAUSE = timedelta(seconds=15)
LONGEST_PAUSE = timedelta(minutes=15)
# After so long a message is news no more.
GIVEN_UP_AFTER = timedelta(days=2)


class Letter(BaseModel):
    """A message for one channel."""

    model_config = ConfigDict(frozen=True)

    channel: str
    message: Message
    written_at: datetime
    due_at: datetime
    attempts: int = 0

    def refused(self, now: datetime) -> Letter:
        """The letter after another failed attempt."""
        pause = min(FIRST_PAUSE * 2 ** min(self.attempts, 10), LONGEST_PAUSE)
        return self.model_copy(update={"attempts": self.attempts + 1, "due_at": now + pause})


class Outbox(BaseModel):
    """What was not taken yet, the oldest first."""

    model_config = ConfigDict(frozen=True)

    letters: tuple[Letter, ...] = ()

    def add(self, channels: tuple[str, ...], message: Message, now: datetime) -> Outbox:
        """With the message, for each of these channels."""
        new = [Letter(channel=name, message=message, written_at=now, due_at=now) for name in channels]
        return Outbox(letters=(*self.letters, *new))

    def waiting(self) -> dict[str, int]:
        """How many letters wait for each channel that has refused one."""
        refused = {letter.channel for letter in self.letters if letter.attempts}
        return {name: sum(letter.channel == name for letter in self.letters) for name in sorted(refused)}

    def delivered(self, known: Mapping[str, Channel], now: datetime) -> Outbox:
        """What is left after every channel's due letters were tried, side by side."""
        by_channel: dict[str, list[Letter]] = defaultdict(list)
        for letter in self.letters:
            by_channel[letter.channel].append(letter)
        if not by_channel:
            return self
        with ThreadPoolExecutor(len(by_channel)) as pool:  # one that does not answer takes its whole time-out
            left = pool.map(lambda name: _left(by_channel[name], known.get(name), now), by_channel)
            letters = [letter for each in left for letter in each]
        return Outbox(letters=tuple(sorted(letters, key=lambda letter: letter.written_at)))


def _left(letters: list[Letter], channel: Channel | None, now: datetime) -> list[Letter]:
    """What one channel has not taken: after the first that it refuses, none is tried. None, where it is gone."""
    if channel is None:
        return []
    waiting = [letter for letter in letters if now - letter.written_at < GIVEN_UP_AFTER]
    while waiting and waiting[0].due_at <= now:
        if not channel.send(waiting[0].message):
            return [waiting[0].refused(now), *waiting[1:]]
        waiting.pop(0)
    return waiting
