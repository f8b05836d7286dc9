from __future__ import annotations

from datetime import UTC, datetime

import pytest

from include.api_keys import ApiKeyError, ApiKeys, ProjectKeys, entries, hashed
from include.s3 import Stored
from tests.simulation.reality import Reality

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def test_only_a_hash_is_kept() -> None:
    store = ApiKeys(Reality().world().releases._objects)
    keys, etag = store.of("digits")
    store.write("digits", keys.added("ann", "a secret", NOW), etag)
    kept, _ = store.of("digits")
    assert "a secret" not in kept.model_dump_json()
    assert entries({"digits": kept}) == {f"digits:{hashed('a secret')}": "digits:ann"}


def test_a_new_key_is_added_beside_the_old_one_which_is_revoked_later() -> None:
    keys = ProjectKeys().added("ann-2025", "old", NOW).added("ann-2026", "new", NOW)
    assert len(entries({"digits": keys})) == 2
    assert list(entries({"digits": keys.revoked("ann-2025")}).values()) == ["digits:ann-2026"]


def test_wrong_names_are_told() -> None:
    keys = ProjectKeys().added("ann", "a", NOW)
    with pytest.raises(ApiKeyError, match="there is a key 'ann' already"):
        keys.added("ann", "b", NOW)
    with pytest.raises(ApiKeyError, match="'Ann Smith' names no key"):
        keys.added("Ann Smith", "b", NOW)
    with pytest.raises(ApiKeyError, match="no key 'bob'; there are: ann"):
        keys.revoked("bob")


def test_of_two_who_change_the_keys_one_wins() -> None:
    store = ApiKeys(Reality().world().releases._objects)
    keys, etag = store.of("digits")
    store.write("digits", keys.added("ann", "a", NOW), etag)
    with pytest.raises(ApiKeyError, match="changed by another"):
        store.write("digits", keys.added("bob", "b", NOW), etag)


def test_keys_that_cannot_be_read_are_named() -> None:
    reality = Reality()
    reality.objects["keys/digits.json"] = Stored(b"{", "1")
    with pytest.raises(ApiKeyError, match=r"keys/digits\.json cannot be read"):
        ApiKeys(reality.world().releases._objects).of("digits")
