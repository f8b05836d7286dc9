"""Where alerts go: channels by URL, through Apprise; which of them a project's incidents go to, its file says.

`AIRLOCK_ALERT_CHANNELS` is `<name>=<URL>` for each, divided by blanks or commas; the URLs are Apprise's
(https://appriseit.com/services/) and hold the secrets, so that they are in `.env` and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Protocol

from include.alert_message import Message
from include.settings import SettingsError

_CHANNEL = re.compile(r"([a-z0-9-]+)=(\S+)")


class Channel(Protocol):
    """Something that takes messages."""

    def send(self, message: Message) -> bool:
        """Whether the message was taken. Never raises, and takes seconds at most."""
        ...


def parse(text: str) -> dict[str, str]:
    """The channels' URLs by name. Raises SettingsError without showing one."""
    found: dict[str, str] = {}
    # A comma divides channels only before a name: URLs hold commas too.
    for number, word in enumerate(re.split(r"\s+|,(?=[a-z0-9-]+=\w+://)", text.strip()), 1):
        if not word:
            continue
        match = _CHANNEL.fullmatch(word)
        if match is None or "://" not in match[2]:
            raise SettingsError(f"ALERT_CHANNELS: channel {number} is not written <name>=<URL>")
        found[match[1]] = match[2]
    return found


class AppriseChannel:
    """A channel that Apprise knows."""

    def __init__(self, url: str) -> None:
        """Raises ValueError where Apprise does not know the kind of URL."""
        import apprise  # a third of a second, and of no use to those who only report

        self._apprise = apprise.Apprise()
        if not self._apprise.add(url):
            raise ValueError("Apprise does not understand its URL: see https://appriseit.com/services/")

    def send(self, message: Message) -> bool:
        """Whether the message was taken."""
        return bool(self._apprise.notify(title=message.title, body=message.body))


def channels(urls: Mapping[str, str]) -> dict[str, Channel]:
    """The channels by name. Raises SettingsError naming the one that is wrong, not its URL."""
    found: dict[str, Channel] = {}
    for name, url in urls.items():
        try:
            found[name] = AppriseChannel(url)
        except ValueError as error:
            raise SettingsError(f"ALERT_CHANNELS: the channel {name!r} cannot be used: {error}") from None
    return found
