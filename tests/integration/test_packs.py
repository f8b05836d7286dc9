"""Packs spare the next host many requests, and nothing depends on them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import obstore
import pytest
from obstore.exceptions import GenericError
from trainer import packs
from trainer.cache import Cache, Fetched

from tests.integration.dataset_lab import Lab, content_key, md5
from tests.integration.s3_servers import S3Server

BODIES = [f"content {number} ".encode() * 10 for number in range(60)]
BY_MD5 = {md5(body): body for body in BODIES}
SIZES = {digest: len(body) for digest, body in BY_MD5.items()}


@pytest.fixture
def lab(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A DVC remote with 60 contents, that fill three packs."""
    monkeypatch.setattr(packs, "FEWEST", 20)
    monkeypatch.setattr(packs, "PACK_BYTES", sum(SIZES.values()) // 3 + 200)
    monkeypatch.setattr("trainer.cache.FEWEST", 20)
    lab = Lab.on(s3_server)
    for digest, body in BY_MD5.items():
        lab.client.put_object(Bucket=lab.dvc, Key=content_key(digest), Body=body)
    return lab


def fetch(lab: Lab, root: Path, count: int = 60) -> Fetched:
    """A host fetches the first contents of the snapshot; each must then be there, with its bytes."""
    wanted = dict(list(SIZES.items())[:count])
    fetched = Cache(root, packs_of="pets").fetch(lab.access, lab.dvc, wanted)
    assert {digest: Cache(root).path(digest).read_bytes() for digest in wanted} == {d: BY_MD5[d] for d in wanted}
    return fetched


def keys(lab: Lab, suffix: str = "") -> list[str]:
    return [key for key in lab.keys(lab.dvc, "packs/pets/") if key.endswith(suffix)]


def packed(lab: Lab) -> list[str]:
    """The md5 of every packed content."""
    return sorted(each[0] for key in keys(lab, ".index") for each in json.loads(lab.read(lab.dvc, key)))


def remove_single_objects(lab: Lab) -> None:
    for key in lab.keys(lab.dvc, "data/"):
        lab.client.delete_object(Bucket=lab.dvc, Key=key)


def test_the_first_host_leaves_packs_and_the_next_reads_nothing_else(lab: Lab, tmp_path: Path) -> None:
    assert fetch(lab, tmp_path / "first") == Fetched(60, sum(SIZES.values()))
    assert len(keys(lab, ".pack")) == len(keys(lab, ".index")) == 3
    assert packed(lab) == sorted(SIZES)
    remove_single_objects(lab)
    assert fetch(lab, tmp_path / "second") == Fetched(60, sum(SIZES.values()))
    assert fetch(lab, tmp_path / "second") == Fetched(0, 0)


def test_without_the_setting_there_are_no_packs(lab: Lab, tmp_path: Path) -> None:
    Cache(tmp_path).fetch(lab.access, lab.dvc, SIZES)
    assert keys(lab) == []


def test_only_what_is_in_no_pack_yet_is_packed(lab: Lab, tmp_path: Path) -> None:
    fetch(lab, tmp_path / "first", 30)
    before = keys(lab)
    fetch(lab, tmp_path / "first", 60)
    assert packed(lab) == sorted(SIZES)
    assert set(before) < set(keys(lab))
    now = keys(lab)
    fetch(lab, tmp_path / "second")
    assert keys(lab) == now


def altered(change: Callable[[bytes], bytes], suffix: str) -> Callable[[Lab], None]:
    def alter(lab: Lab) -> None:
        for key in keys(lab, suffix):
            lab.client.put_object(Bucket=lab.dvc, Key=key, Body=change(lab.read(lab.dvc, key)))

    return alter


def deleted(suffix: str) -> Callable[[Lab], None]:
    def delete(lab: Lab) -> None:
        for key in keys(lab, suffix):
            lab.client.delete_object(Bucket=lab.dvc, Key=key)

    return delete


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(deleted(""), id="deleted"),
        pytest.param(deleted(".index"), id="half written"),
        pytest.param(deleted(".pack"), id="packs gone"),
        pytest.param(altered(lambda body: body[: len(body) // 2], ".pack"), id="truncated"),
        pytest.param(altered(lambda body: body[:300] + b"x" * 300 + body[600:], ".pack"), id="damaged"),
        pytest.param(altered(lambda body: body[: len(body) // 2], ".index"), id="index truncated"),
        pytest.param(altered(lambda body: body.replace(b", 0, ", b", 1, "), ".index"), id="index damaged"),
    ],
)
def test_whatever_happens_to_packs_nothing_is_lost_and_the_next_host_makes_them_anew(
    lab: Lab, tmp_path: Path, harm: Callable[[Lab], None]
) -> None:
    fetch(lab, tmp_path / "first")
    harm(lab)
    fetch(lab, tmp_path / "second")
    remove_single_objects(lab)
    fetch(lab, tmp_path / "third")


def test_lost_packs_are_written_again(lab: Lab, tmp_path: Path) -> None:
    fetch(lab, tmp_path / "first")
    before = {key: lab.read(lab.dvc, key) for key in keys(lab)}
    deleted("")(lab)
    fetch(lab, tmp_path / "second")
    assert {key: lab.read(lab.dvc, key) for key in keys(lab)} == before


def test_a_pack_that_cannot_be_written_is_a_warning_and_leaves_no_index(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put = obstore.put

    def refuse(store: object, key: str, body: bytes) -> object:
        if key.endswith(".index"):
            raise GenericError("the disk of the server is full")
        return put(store, key, body)  # type: ignore[arg-type]

    monkeypatch.setattr(obstore, "put", refuse)
    assert fetch(lab, tmp_path).objects == 60
    assert "packs.not_written cause=the disk of the server is full" in caplog.text
    assert keys(lab, ".index") == []


def test_two_hosts_may_pack_the_same_at_once(lab: Lab, tmp_path: Path) -> None:
    hosts = [threading.Thread(target=fetch, args=(lab, tmp_path / name)) for name in ("one", "other")]
    for host in hosts:
        host.start()
    for host in hosts:
        host.join()
    remove_single_objects(lab)
    fetch(lab, tmp_path / "third")


def test_a_few_wanted_contents_are_not_worth_a_pack(lab: Lab, tmp_path: Path) -> None:
    fetch(lab, tmp_path / "first")
    deleted(".pack")(lab)  # would be told, were it read
    assert fetch(lab, tmp_path / "second", 10).objects == 10
