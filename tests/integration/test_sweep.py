"""Old snapshots and what they alone name are removed, beside snapshots that are being taken, and nothing else is."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path

import pytest
from trainer import directory, fences, recording, sweep
from trainer.cache import Cache
from trainer.catalogue import Catalogue
from trainer.errors import DataError, UnavailableError
from trainer.sweep import Remote, SweepResult

from tests.integration.dataset_lab import PROJECT, Lab, content_key, md5
from tests.integration.s3_servers import S3Server

# Objects of this very moment are older than that.
NO_DAYS = 1e-9
ONE, TWO, THREE = b"one", b"two", b"three"


@pytest.fixture
def lab(s3_server: S3Server) -> Lab:
    return Lab.on(s3_server)


def swept(
    lab: Lab, cache: Path, old: Collection[str] = (), days: float = NO_DAYS, *, delete: bool = True
) -> SweepResult:
    remote = Remote(lab.access, lab.airlock, lab.dvc)
    return sweep.sweep(remote, cache, [f"{PROJECT}/{each}" for each in old], days, delete=delete)


def take(lab: Lab, **pictures: bytes) -> str:
    """A snapshot of exactly these."""
    for key in lab.keys(lab.train):
        lab.delete(key)
    for name, body in pictures.items():
        lab.put(f"a/{name}.png", body)
    snapshot_id = lab.take().snapshot_id
    assert snapshot_id
    return snapshot_id


def everything(lab: Lab) -> list[str]:
    return [key for key in (*lab.keys(lab.dvc), *lab.keys(lab.airlock)) if not key.startswith(("snapshots/_",))]


def assert_whole(lab: Lab, snapshot_id: str) -> None:
    """A snapshot's contents are all there."""
    catalogue = Catalogue(lab.access, PROJECT, lab.airlock, lab.dvc)
    for entry in catalogue.entries(catalogue.record(snapshot_id).md5):
        assert md5(lab.read(lab.dvc, content_key(entry.md5))) == entry.md5


def test_an_old_snapshot_goes_with_what_it_alone_names(lab: Lab, tmp_path: Path) -> None:
    old = take(lab, one=ONE, two=TWO)
    young = take(lab, two=TWO, three=THREE)
    left = [key for key in everything(lab) if old in key]
    result = swept(lab, tmp_path, [old])
    assert (result.snapshots, result.objects) == (1, 2), "its directory object, and the content `one`"
    assert result.bytes > len(ONE)
    assert left
    assert [key for key in everything(lab) if old in key] == []
    assert content_key(md5(ONE)) not in lab.keys(lab.dvc)
    assert_whole(lab, young)
    assert swept(lab, tmp_path, [old]) == SweepResult(0, 0, 0, 0, 0, deleted=True)


def test_without_delete_it_is_the_same_report_and_nothing_goes(lab: Lab, tmp_path: Path) -> None:
    old = take(lab, one=ONE)
    take(lab, two=TWO)
    before = everything(lab)
    told = swept(lab, tmp_path, [old], delete=False)
    assert (told.snapshots, told.objects, told.deleted) == (1, 2, False)
    assert everything(lab) == before
    result = swept(lab, tmp_path, [old])
    assert (result.snapshots, result.objects, result.bytes) == (told.snapshots, told.objects, told.bytes)


def test_what_no_snapshot_names_stays_while_it_is_young(lab: Lab, tmp_path: Path) -> None:
    take(lab, one=ONE)
    lab.pin(TWO)
    assert swept(lab, tmp_path, days=1).objects == 0
    assert swept(lab, tmp_path).objects == 1


def test_a_snapshot_that_cannot_be_read_keeps_everything(lab: Lab, tmp_path: Path) -> None:
    old, young = take(lab, one=ONE), take(lab, two=TWO)
    name = lab.record(young)["md5"]
    lab.client.delete_object(Bucket=lab.dvc, Key=f"data/{directory.content_path(name)}")
    before = everything(lab)
    with pytest.raises(DataError, match="is missing: the snapshot cannot be read"):
        swept(lab, tmp_path, [old])
    assert everything(lab) == before
    assert lab.take().snapshot_id == young, "and a snapshot can be taken again at once"


def test_beside_a_removal_no_snapshot_is_taken_and_no_second_removal_begins(lab: Lab, tmp_path: Path) -> None:
    take(lab, one=ONE)
    fence = fences.begin(lab.access, lab.airlock)
    lab.put("a/two.png", TWO)
    with pytest.raises(UnavailableError, match="is removing old contents, beside which no snapshot is taken"):
        lab.take()
    with pytest.raises(UnavailableError, match="another removal of old contents is under way"):
        swept(lab, tmp_path)
    fences.end(lab.access, lab.airlock, fence)
    assert lab.take().status == "created"


def test_one_that_was_killed_holds_nobody_up_for_ever(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fences, "LASTS_SECONDS", 0.0)
    fences.begin(lab.access, lab.airlock)
    assert take(lab, one=ONE)


@pytest.mark.parametrize("moment", ["contents_of", "write_files", "write_record"])
def test_a_removal_at_any_moment_of_a_snapshot_leaves_it_whole(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    take(lab, two=TWO)
    lab.pin(ONE)  # what an earlier snapshot has left, and this one takes for granted
    ours: Callable[..., object] = getattr(recording, moment)

    def meanwhile(*arguments: object) -> object:
        monkeypatch.setattr(recording, moment, ours)
        done = ours(*arguments) if moment != "write_record" else None
        swept(lab, tmp_path)
        return done if moment != "write_record" else ours(*arguments)

    monkeypatch.setattr(recording, moment, meanwhile)
    assert_whole(lab, take(lab, one=ONE, two=TWO))


def test_what_the_host_has_not_used_for_long_goes_and_what_a_tree_links_to_stays(lab: Lab, tmp_path: Path) -> None:
    take(lab, one=ONE, two=TWO, three=THREE)
    bodies = (ONE, TWO, THREE)
    for body in bodies:  # as a run that has ended has left them
        path = Cache(tmp_path).path(md5(body))
        path.parent.mkdir(parents=True)
        path.write_bytes(body)
    os.link(Cache(tmp_path).path(md5(TWO)), tmp_path / "linked")
    assert swept(lab, tmp_path, days=1).cache_objects == 0
    told = swept(lab, tmp_path, delete=False)
    assert (told.cache_objects, told.cache_bytes) == (2, len(ONE) + len(THREE))
    swept(lab, tmp_path)
    assert [Cache(tmp_path).path(md5(body)).exists() for body in bodies] == [False, True, False]
