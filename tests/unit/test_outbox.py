"""Messages are tried until they are taken; a dead channel holds up no other; channels are told apart by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from include.alert_channels import channels, parse
from include.alert_message import Message
from include.outbox import GIVEN_UP_AFTER, Outbox
from include.settings import SettingsError

NOW = datetime(2026, 11, 29, 2, 0, tzinfo=UTC)


@dataclass
class Channel:
    """Takes messages while it is up."""

    up: bool = True
    taken: list[str] = field(default_factory=list)
    asked: int = 0

    def send(self, message: Message) -> bool:
        self.asked += 1
        if self.up:
            self.taken.append(message.title)
        return self.up


def written(*titles: str) -> Outbox:
    outbox = Outbox()
    for title in titles:
        outbox = outbox.add(("ops", "mail"), Message(title, "body"), NOW)
    return outbox


def test_every_channel_gets_every_message_in_order() -> None:
    known = {"ops": Channel(), "mail": Channel()}
    assert written("one", "two").delivered(known, NOW).letters == ()
    assert [channel.taken for channel in known.values()] == [["one", "two"]] * 2


def test_a_dead_channel_holds_up_no_other_and_gets_its_messages_in_order_when_it_is_back() -> None:
    ops, mail = Channel(), Channel(up=False)
    known = {"ops": ops, "mail": mail}
    left = written("one", "two").delivered(known, NOW)
    assert ops.taken == ["one", "two"]
    assert mail.asked == 1, "it is not asked for the second when it has refused the first"
    assert left.waiting() == {"mail": 2}
    assert left.delivered(known, NOW + timedelta(seconds=1)) == left, "it has its pause"
    mail.up = True
    assert left.delivered(known, NOW + timedelta(minutes=1)).letters == ()
    assert mail.taken == ["one", "two"]


def test_pauses_grow_and_end_at_a_quarter_of_an_hour() -> None:
    outbox, now, pauses = written("one"), NOW, []
    for _ in range(9):
        outbox = outbox.delivered({"ops": Channel(), "mail": Channel(up=False)}, now)
        pauses.append((outbox.letters[0].due_at - now).total_seconds())
        now = outbox.letters[0].due_at
    assert pauses == [15, 30, 60, 120, 240, 480, 900, 900, 900]


def test_old_news_and_letters_for_a_channel_that_is_gone_are_dropped() -> None:
    assert written("one").delivered({"mail": Channel(up=False)}, NOW + GIVEN_UP_AFTER).letters == ()


def test_channels_are_read_by_name_and_their_urls_may_hold_commas() -> None:
    text = "ops=slack://a/b/c,mail=mailtos://u:p@host?to=a@x,b@x hook=json://127.0.0.1:9/x"
    assert parse(text) == {
        "ops": "slack://a/b/c",
        "mail": "mailtos://u:p@host?to=a@x,b@x",
        "hook": "json://127.0.0.1:9/x",
    }
    assert parse("") == {}


@pytest.mark.parametrize("text", ["slack://tokena/tokenb", "ops=tokena", "ops=json://a junk"])
def test_a_channel_that_is_written_otherwise_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(SettingsError, match="is not written <name>=<URL>") as refused:
        parse(text)
    assert "token" not in str(refused.value)


def test_a_url_that_apprise_does_not_know_is_refused_by_its_name() -> None:
    with pytest.raises(SettingsError, match="the channel 'ops' cannot be used") as refused:
        channels({"ops": "nosuch://secret-token"})
    assert "secret" not in str(refused.value)
