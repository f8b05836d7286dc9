"""Snapshots on real S3 servers, and against a stock DVC."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from trainer import large_copies, listing, pinning, recording
from trainer.catalogue import Catalogue
from trainer.errors import ConfigError, DataError, UnavailableError
from trainer.hashing import Changed
from trainer.s3 import S3Access
from trainer.snapshot import SnapshotResult

from tests.integration.dataset_lab import PROJECT, Lab, content_key, md5, write_tree
from tests.integration.ports import free_ports
from tests.integration.s3_servers import S3Server, falsify_etags
from tests.tools.environments import executable

UNUSUAL = {
    "a cat/with space.png": b"1",
    'a cat/it\'s "quoted".png': b"2",
    "größe/ümläut ß.png": b"3",
    "smile/😀 👩‍🚀.png": b"4",
    "nested/deeper/and deeper/100%25?#&+[x]{y}~.png": b"5",
    "日本語/写真.png": b"6",
    "plain/1.png": b"1",
    "plain/empty.png": b"",
    "top-level.txt": b"7",
}


@pytest.fixture(params=["s3_server", "plain_s3_server"])
def any_lab(request: pytest.FixtureRequest) -> Lab:
    """A project's buckets, on each kind of server."""
    return Lab.on(request.getfixturevalue(request.param))


@pytest.fixture
def lab(s3_server: S3Server) -> Lab:
    """A project's buckets."""
    return Lab.on(s3_server)


def fill(lab: Lab, files: dict[str, bytes]) -> None:
    for key, body in files.items():
        lab.put(key, body)


def dvc(lab: Lab, cwd: Path, *words: str) -> str:
    keys = {"AWS_ACCESS_KEY_ID": lab.server.access_key_id, "AWS_SECRET_ACCESS_KEY": lab.server.secret_access_key}
    environment = {**os.environ, **keys, "DVC_NO_ANALYTICS": "1", "HOME": str(cwd), "AWS_REGION": "us-east-1"}
    command = [str(executable("dvc", "dvc")), *words]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_directory_object_is_the_one_that_dvc_add_makes_of_the_same_tree(lab: Lab, tmp_path: Path) -> None:
    fill(lab, UNUSUAL)
    taken = lab.take()
    write_tree(tmp_path / "tree", UNUSUAL)
    dvc(lab, tmp_path, "init", "--no-scm", "-q")
    dvc(lab, tmp_path, "add", "-q", "tree")
    made = re.search(r"md5: (\w+)\.dir", (tmp_path / "tree.dvc").read_text())
    assert made is not None
    assert taken.md5 == f"{made.group(1)}.dir"
    ours = lab.read(lab.dvc, content_key(taken.md5))
    assert ours == (tmp_path / ".dvc/cache/files/md5" / made.group(1)[:2] / f"{made.group(1)[2:]}.dir").read_bytes()


def test_a_stock_dvc_pull_checks_a_snapshot_out_after_the_bucket_has_changed(lab: Lab, tmp_path: Path) -> None:
    fill(lab, UNUSUAL)
    taken = lab.take()
    for key in UNUSUAL:
        lab.delete(key)
    dvc(lab, tmp_path, "init", "--no-scm", "-q")
    dvc(lab, tmp_path, "remote", "add", "-q", "-d", "data", f"s3://{lab.dvc}/data")
    dvc(lab, tmp_path, "remote", "modify", "-q", "data", "endpointurl", lab.server.endpoint_url)
    pointer = lab.read(lab.airlock, f"snapshots/{PROJECT}/{taken.snapshot_id}.dvc")
    (tmp_path / "dataset.dvc").write_bytes(pointer)
    dvc(lab, tmp_path, "pull", "-q")
    root = tmp_path / PROJECT
    assert {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()} == UNUSUAL


def test_a_first_snapshot_pins_every_content_once_and_counts_its_classes(any_lab: Lab) -> None:
    fill(any_lab, {"cat/1.png": b"one", "cat/2.png": b"two", "dog/1.png": b"three!", "dog/same.png": b"three!"})
    taken = any_lab.take()
    assert (taken.status, taken.count, taken.bytes) == ("created", 4, 18)
    assert re.fullmatch(r"\d{8}T\d{9}Z-[0-9a-f]{8}", taken.snapshot_id or "")
    record = any_lab.record(taken.snapshot_id)
    assert record["classes"] == {"cat": {"count": 2, "bytes": 6}, "dog": {"count": 2, "bytes": 12}}
    assert (record["parent"], record["diff"]) == (None, {"added": 4, "removed": 0, "changed": 0})
    assert record["layout"] == "flat"
    for body in (b"one", b"two", b"three!"):
        assert any_lab.read(any_lab.dvc, content_key(md5(body))) == body
    assert len(any_lab.keys(any_lab.dvc)) == 4


def test_unchanged_content_makes_no_new_snapshot(any_lab: Lab) -> None:
    fill(any_lab, {"cat/1.png": b"one", "dog/1.png": b"two"})
    first = any_lab.take()
    again = any_lab.take()
    assert (again.status, again.snapshot_id, again.md5) == ("existing", first.snapshot_id, first.md5)
    assert any_lab.keys(any_lab.airlock, f"snapshots/{PROJECT}/") == files_of(first)


def test_a_changed_bucket_gives_a_child_with_its_difference(any_lab: Lab) -> None:
    fill(any_lab, {"cat/1.png": b"one", "dog/1.png": b"two", "dog/2.png": b"three"})
    first = any_lab.take()
    fill(any_lab, {"cat/1.png": b"another", "cat/new.png": b"new"})
    any_lab.delete("dog/2.png")
    second = any_lab.take()
    record = any_lab.record(second.snapshot_id)
    assert (record["parent"], record["diff"]) == (first.snapshot_id, {"added": 1, "removed": 1, "changed": 1})


def test_content_that_goes_back_is_a_new_snapshot_of_the_old_content(lab: Lab) -> None:
    lab.put("cat/1.png", b"one")
    first = lab.take()
    lab.put("cat/1.png", b"two")
    second = lab.take()
    lab.put("cat/1.png", b"one")
    third = lab.take()
    assert third.status == "created"
    assert third.md5 == first.md5
    assert (first.snapshot_id or "") < (second.snapshot_id or "") < (third.snapshot_id or "")


@pytest.mark.parametrize("harm", ["gone", "damaged"])
def test_a_newest_snapshot_whose_directory_object_is_unreadable_holds_up_no_other_and_the_same_content_mends_it(
    lab: Lab, harm: str
) -> None:
    fill(lab, {"cat/1.png": b"one", "cat/2.png": b"two"})
    first = lab.take()
    key = content_key(first.md5 or "")
    whole = lab.read(lab.dvc, key)
    if harm == "gone":
        lab.client.delete_object(Bucket=lab.dvc, Key=key)
    else:
        lab.client.put_object(Bucket=lab.dvc, Key=key, Body=whole[:-10])
    again = lab.take()
    assert (again.status, again.snapshot_id) == ("existing", first.snapshot_id)
    assert lab.read(lab.dvc, key) == whole
    lab.client.delete_object(Bucket=lab.dvc, Key=key)
    lab.put("cat/3.png", b"three")
    assert lab.take().status == "created"


def test_a_listing_that_is_not_the_settled_one_is_left_alone(lab: Lab) -> None:
    lab.put("cat/1.png", b"one")
    settled = lab.take().listing_digest
    lab.put("cat/2.png", b"two")
    before = lab.keys(lab.airlock), lab.keys(lab.dvc)
    changed = lab.take(expected_digest=settled)
    assert (changed.status, changed.snapshot_id, changed.md5) == ("changed", None, None)
    assert (lab.keys(lab.airlock), lab.keys(lab.dvc)) == before
    assert lab.take(expected_digest=changed.listing_digest).status == "created"


def test_a_deleted_bucket_content_is_changed_for_the_watch_and_an_error_by_hand(lab: Lab) -> None:
    lab.put("cat/1.png", b"one")
    settled = lab.take().listing_digest
    lab.delete("cat/1.png")
    assert lab.take(expected_digest=settled).status == "changed"
    with pytest.raises(DataError, match=f"{lab.train} is empty"):
        lab.take()


def test_an_etag_that_is_no_md5_is_hashed_once_and_remembered(any_lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    any_lab.put("cat/1.png", b"one")
    any_lab.put_in_parts("cat/parts.png", b"in parts")
    first = any_lab.take()
    assert any_lab.read(any_lab.dvc, content_key(md5(b"in parts"))) == b"in parts"
    assert "objects=1 remembered=0" in caplog.text
    any_lab.put("dog/1.png", b"two")
    second = any_lab.take()
    assert "objects=1 remembered=1" in caplog.text
    any_lab.put_in_parts("cat/parts.png", b"IN PARTS")
    third = any_lab.take()
    assert len({first.md5, second.md5, third.md5}) == 3
    assert any_lab.read(any_lab.dvc, content_key(md5(b"IN PARTS"))) == b"IN PARTS"


def test_etags_that_only_look_like_md5s_are_found_out_and_every_new_object_is_hashed_once(
    plain_s3_server: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    lab = Lab.on(plain_s3_server)
    files = {f"cat/{n}.png": f"{n}".encode() for n in range(3)}
    fill(lab, files)
    falsify_etags(plain_s3_server)
    first = lab.take()
    entries = json.loads(lab.read(lab.dvc, content_key(first.md5 or "")))
    assert {entry["relpath"]: entry["md5"] for entry in entries} == {key: md5(body) for key, body in files.items()}
    assert "objects=3 remembered=0" in caplog.text
    assert all(lab.read(lab.dvc, content_key(md5(body))) == body for body in files.values())
    lab.put("dog/4.png", b"four")
    lab.take()
    assert "objects=3 remembered=3" in caplog.text


def test_folder_markers_are_no_files_but_empty_files_are(any_lab: Lab) -> None:
    fill(any_lab, {"cat/": b"", "cat/1.png": b"one", "cat/empty.png": b"", "alone/": b""})
    taken = any_lab.take()
    directory = json.loads(any_lab.read(any_lab.dvc, content_key(taken.md5 or "")))
    assert [entry["relpath"] for entry in directory] == ["cat/1.png", "cat/empty.png"]


def test_keys_that_no_checkout_can_hold_are_refused_by_name(any_lab: Lab) -> None:
    fill(any_lab, {"cat/1.png": b"one", "cat/IMG.png": b"1", "cat/img.png": b"2", "dog/two\nlines.png": b"3"})
    with pytest.raises(DataError) as refused:
        any_lab.take()
    assert "'cat/img.png'" in str(refused.value)
    assert "'dog/two\\nlines.png'" in str(refused.value)
    assert any_lab.keys(any_lab.airlock) == []


def test_an_existing_split_is_recorded(lab: Lab) -> None:
    fill(lab, {"train/cat/1.png": b"1", "train/dog/2.png": b"2", "val/cat/3.png": b"3", "README.md": b"hello"})
    record = lab.record(lab.take().snapshot_id)
    assert record["layout"] == "split"
    assert record["classes"] == {"cat": {"count": 2, "bytes": 2}, "dog": {"count": 1, "bytes": 1}}


def files_of(taken: SnapshotResult) -> list[str]:
    return [f"snapshots/{PROJECT}/{taken.snapshot_id}.{suffix}" for suffix in ("dvc", "json", "sizes")]


def test_of_two_snapshotters_at_once_one_writes_and_the_other_finishes(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.put("cat/1.png", b"one")
    both = threading.Barrier(2)
    write = recording.write_record

    def together(*arguments: Any) -> bool:
        both.wait(timeout=30)
        return write(*arguments)

    monkeypatch.setattr(recording, "write_record", together)
    with ThreadPoolExecutor(2) as threads:
        results = [each.result() for each in [threads.submit(lab.take), threads.submit(lab.take)]]
    assert sorted(result.status for result in results) == ["created", "existing"]
    assert len({result.snapshot_id for result in results}) == 1
    assert lab.keys(lab.airlock, f"snapshots/{PROJECT}/") == files_of(results[0])


def test_a_snapshotter_that_another_overtakes_writes_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.put("cat/1.png", b"one")
    settled = listing.digest(listing.read(lab.access, lab.train))
    write = recording.write_record
    overtaking: list[SnapshotResult] = []

    def late(*arguments: Any) -> bool:
        monkeypatch.setattr(recording, "write_record", write)
        lab.put("cat/1.png", b"two")
        overtaking.append(lab.take())
        return write(*arguments)

    monkeypatch.setattr(recording, "write_record", late)
    result = lab.take(settled)
    assert (result.status, result.snapshot_id) == ("changed", None)
    assert "another snapshot was taken meanwhile" in result.reason
    assert lab.keys(lab.airlock, f"snapshots/{PROJECT}/") == files_of(overtaking[0])


def test_objects_too_large_for_one_copy_are_copied_in_parts(any_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    part = 5 << 20  # the least that S3 takes as a part
    monkeypatch.setattr(large_copies, "LARGEST_COPY_BYTES", part)
    monkeypatch.setattr(large_copies, "PART_BYTES", part)
    body = random.Random(1).randbytes(2 * part + 12_345)
    any_lab.put("cat/large.tif", body)
    any_lab.put("cat/small.png", b"small")
    taken = any_lab.take()
    assert taken.status == "created"
    assert any_lab.read(any_lab.dvc, content_key(md5(body))) == body


def test_a_large_object_that_changes_while_it_is_copied_leaves_no_part_of_it(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_copies, "LARGEST_COPY_BYTES", 10)
    lab.put("cat/large.tif", b"one large object")
    [row] = listing.read(lab.access, lab.train)
    lab.put("cat/large.tif", b"another large one")
    with pytest.raises(Changed):
        pinning.copy(lab.access, lab.train, lab.dvc, [pinning.Content(row.etag, row)])
    assert lab.keys(lab.dvc) == []
    assert not lab.client.list_multipart_uploads(Bucket=lab.dvc).get("Uploads")


@pytest.mark.parametrize("shape", ["flat", "split"])
def test_a_large_bucket_is_listed_folder_beside_folder_as_in_one_stream(
    any_lab: Lab, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = ("train/", "val/") if shape == "split" else ("",)
    names = [
        f"{side}{label}/{n}.png" for side in sides for label in ("a b", "größe", "nested/deeper") for n in range(3)
    ]
    fill(any_lab, {name: name.encode() for name in [*names, "weights.pt", "train.txt", "train-more/x.png"]})
    in_one_stream = listing.read(any_lab.access, any_lab.train)
    monkeypatch.setattr(listing, "PAGES_IN_ONE_STREAM", 0)
    assert listing.read(any_lab.access, any_lab.train) == in_one_stream
    assert len(in_one_stream) == len(names) + 3


def test_keys_that_no_checkout_can_hold_are_refused_in_a_large_bucket_too(
    any_lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(any_lab, {"cat/1.png": b"one", "cat//2.png": b"2", "dog/two\nlines.png": b"3"})
    monkeypatch.setattr(listing, "PAGES_IN_ONE_STREAM", 0)
    with pytest.raises(DataError, match="no checkout can hold"):
        any_lab.take()


def test_contents_that_the_remote_holds_are_found_by_asking_and_by_listing(lab: Lab) -> None:
    held, missing = md5(b"held"), md5(b"missing")
    lab.client.put_object(Bucket=lab.dvc, Key=content_key(held), Body=b"held")
    for held_about in (0, 1_000_000):
        assert pinning.lacking(lab.access, lab.dvc, {held, missing}, held_about) == {missing}


def test_an_unknown_snapshot_names_the_nearest(lab: Lab) -> None:
    ids = []
    for n in range(4):
        lab.put("cat/1.png", f"{n}".encode())
        ids.append(lab.take().snapshot_id or "")
    with pytest.raises(DataError) as unknown:
        Catalogue(lab.access, PROJECT, lab.airlock, lab.dvc).record(ids[1][:-2])
    assert ids[1] in str(unknown.value)
    assert sum(each in str(unknown.value) for each in ids) == 3


@pytest.mark.parametrize("snapshot_id", ["nonsense", "../../secrets", "", "a\nb"])
def test_an_id_that_a_person_mistyped_is_unknown_not_a_crash(lab: Lab, snapshot_id: str) -> None:
    with pytest.raises(DataError, match="no snapshot yet"):
        Catalogue(lab.access, PROJECT, lab.airlock, lab.dvc).record(snapshot_id)


def test_wrong_keys_and_a_missing_bucket_are_configuration_errors_without_the_secret(any_lab: Lab) -> None:
    server = any_lab.server
    wrong = S3Access(server.endpoint_url, server.access_key_id, "not-the-secret-key")
    with pytest.raises(ConfigError, match="SignatureDoesNotMatch") as refused:
        Catalogue(wrong, PROJECT, any_lab.airlock, any_lab.dvc).ids()
    assert "not-the-secret-key" not in str(refused.value) + repr(wrong)
    with pytest.raises(ConfigError, match="no such bucket"):
        Catalogue(any_lab.access, PROJECT, "no-such-bucket", any_lab.dvc).ids()


def test_a_server_that_is_down_is_unavailable() -> None:
    access = S3Access(f"http://127.0.0.1:{free_ports(1)[0]}", "key", "secret")
    with pytest.raises(UnavailableError, match="listing airlock/snapshots/pets failed"):
        Catalogue(access, PROJECT, "airlock", "dvc").ids()


def test_an_address_that_is_none_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="S3_ENDPOINT_URL"):
        S3Access("s3:9000", "key", "secret")
