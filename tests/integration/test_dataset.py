"""From a bucket to a directory that Ultralytics can train on."""

from __future__ import annotations

import io
import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from PIL import Image
from trainer.dataset import Dataset, prepare
from trainer.errors import DataError
from trainer.preflight import Refused

from tests.integration.dataset_lab import PROJECT, Lab
from tests.integration.s3_servers import S3Server


@pytest.fixture
def lab(s3_server: S3Server) -> Lab:
    """A project's buckets."""
    return Lab.on(s3_server)


def picture(seed: int, form: str = "PNG") -> bytes:
    """A picture of noise that no other seed gives."""
    noise = random.Random(seed).randbytes(16 * 16 * 3)
    buffer = io.BytesIO()
    Image.frombytes("RGB", (16, 16), noise).save(buffer, form)
    return buffer.getvalue()


def prepared(lab: Lab, where: Path, snapshot_id: str | None = None, bad_share: float = 0.2) -> Dataset:
    return prepare(
        lab.access,
        **lab.environment(),
        snapshot_id=snapshot_id if snapshot_id is not None else (lab.take().snapshot_id or ""),
        cache_dir=where / "cache",
        cache_limit_bytes=None,
        packs=False,
        work_dir=where / "work",
        val_share=0.2,
        min_images_per_class=5,
        max_bad_share=bad_share,
    )


def fill(lab: Lab, labels: str = "ab", count: int = 10) -> None:
    for label in labels:
        for n in range(count):
            lab.put(f"{label}/{n}.png", picture(ord(label) * 1000 + n))


def test_a_bucket_with_faults_under_the_share_becomes_a_clean_tree_and_a_list_of_what_was_left_out(
    lab: Lab, tmp_path: Path
) -> None:
    fill(lab)
    lab.put("a/photo without suffix", picture(1, "JPEG"))
    lab.put("a/truncated.png", picture(2)[:200])
    lab.put("b/notes.txt", b"not a picture")
    lab.put("b/copy of 0.png", picture(ord("b") * 1000))
    lab.put("a/both.png", picture(3))
    lab.put("b/both.png", picture(3))
    lab.put("a/.DS_Store", b"\0\0\0\1Bud1")
    dataset = prepared(lab, tmp_path)
    assert dataset.classes == ("a", "b")
    assert len(dataset.train) + len(dataset.val) == 21
    assert {(each.relpath, each.cause.split(":")[0]) for each in dataset.left_out} == {
        ("a/.DS_Store", "a hidden file"),
        ("a/both.png", "the same picture under the labels a, b"),
        ("a/truncated.png", "cannot be decoded"),
        ("b/both.png", "the same picture under the labels a, b"),
        ("b/copy of 0.png", "the same picture as b/0.png"),
        ("b/notes.txt", "not a picture"),
    }
    laid_out = {path for path in dataset.root.rglob("*") if path.is_file()}
    assert laid_out == {picture.path for picture in (*dataset.train, *dataset.val)}
    by_name = {picture.relpath: picture.path for picture in (*dataset.train, *dataset.val)}
    assert by_name["a/photo without suffix"].suffix == ".jpg"
    for each in dataset.val:
        assert each.path == dataset.root / "val" / each.label / f"{each.md5}{each.path.suffix}"
        assert each.path.read_bytes() == lab.read(lab.train, each.relpath)


def test_no_picture_moves_from_train_into_val_when_more_are_uploaded(lab: Lab, tmp_path: Path) -> None:
    fill(lab)
    before = prepared(lab, tmp_path)
    for n in range(10, 40):
        lab.put(f"a/{n}.png", picture(ord("a") * 1000 + n))
    after = prepared(lab, tmp_path)
    assert not {p.md5 for p in before.train} & {p.md5 for p in after.val}
    assert before.root != after.root


def test_an_earlier_snapshot_is_prepared_as_it_was_though_the_bucket_was_emptied(lab: Lab, tmp_path: Path) -> None:
    fill(lab)
    first = lab.take().snapshot_id
    for key in lab.keys(lab.train):
        lab.delete(key)
    assert len(prepared(lab, tmp_path, first).report.counts["train"]) == 2


def test_an_existing_split_is_kept(lab: Lab, tmp_path: Path) -> None:
    for split, count in (("train", 6), ("val", 2)):
        for label in "ab":
            for n in range(count):
                lab.put(f"{split}/{label}/{n}.png", picture(crc32(f"{split}/{label}/{n}".encode())))
    lab.put("train/a/leaked.png", lab.read(lab.train, "val/a/0.png"))
    dataset = prepared(lab, tmp_path)
    assert dataset.report.counts == {"train": {"a": 6, "b": 6}, "val": {"a": 2, "b": 2}}
    assert [each.relpath for each in dataset.left_out] == ["train/a/leaked.png"]


def test_one_class_is_refused(lab: Lab, tmp_path: Path) -> None:
    fill(lab, "a")
    with pytest.raises(DataError, match="it has one class"):
        prepared(lab, tmp_path)


def test_a_class_missing_from_val_is_refused(lab: Lab, tmp_path: Path) -> None:
    for key in ("train/a", "train/b", "val/a"):
        for n in range(6):
            lab.put(f"{key}/{n}.png", picture(crc32(f"{key}/{n}".encode())))
    with pytest.raises(DataError, match="the class 'b' has no picture in val"):
        prepared(lab, tmp_path)


def test_too_many_bad_files_are_refused_by_name(lab: Lab, tmp_path: Path) -> None:
    fill(lab)
    lab.put("a/broken.png", b"broken")
    with pytest.raises(DataError, match=r"a/broken\.png \(not a picture\)"):
        prepared(lab, tmp_path, bad_share=0.01)


def decoded(log: str) -> list[str]:
    return re.findall(r"decoded pictures=(\d+)", log)


def test_a_second_run_decodes_nothing_and_a_later_one_only_what_has_changed(
    lab: Lab, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    fill(lab)
    lab.put("a/broken.png", b"broken")
    first, again = prepared(lab, tmp_path), prepared(lab, tmp_path)
    lab.put("a/0.png", picture(5, "JPEG"))
    changed = prepared(lab, tmp_path)
    assert decoded(caplog.text) == ["21", "0", "1"]
    assert again.left_out == first.left_out
    assert {each.path.suffix for each in changed.train + changed.val if each.relpath == "a/0.png"} == {".jpg"}


def report_in(files: Sequence[Path]) -> Any:
    document, page, _ = files
    assert page.read_text().startswith("<!doctype html>")
    return json.loads(document.read_text())


def test_the_report_shows_what_is_new_against_the_parent(lab: Lab, tmp_path: Path) -> None:
    fill(lab)
    first = prepared(lab, tmp_path)
    lab.put("b/new.png", picture(6))
    lab.put("b/renamed.png", lab.read(lab.train, "b/0.png"))
    lab.delete("b/0.png")
    second = prepared(lab, tmp_path)
    report = report_in(second.report_files)
    assert report["snapshot"]["parent"] == first.snapshot_id
    assert [each["relpath"] for each in report["contact_sheet"]["shown"]] == ["b/new.png"]
    assert report["problems"] == []


def test_a_refused_dataset_comes_with_its_report(lab: Lab, tmp_path: Path) -> None:
    fill(lab, "a")
    with pytest.raises(Refused) as refused:
        prepared(lab, tmp_path)
    report = report_in(refused.value.files)
    assert str(refused.value).endswith("; ".join(report["problems"]))
    assert "it has one class" in report["problems"][0]


def test_a_parent_that_cannot_be_read_is_said_in_the_report_and_stops_nothing(lab: Lab, tmp_path: Path) -> None:
    fill(lab)
    parent = lab.take().snapshot_id
    lab.put("a/new.png", picture(7))
    dataset = prepared(lab, tmp_path)
    lab.client.delete_object(Bucket=lab.airlock, Key=f"snapshots/{PROJECT}/{parent}.json")
    report = report_in(prepared(lab, tmp_path, dataset.snapshot_id).report_files)
    assert f"has no snapshot '{parent}'" in report["contact_sheet"]["note"]
    assert {each["new"] for each in report["classes"]} == {None}
    assert report["contact_sheet"]["pictures"] == 21


def test_a_misplaced_file_with_the_content_of_a_bad_one_is_told_too(lab: Lab, tmp_path: Path) -> None:
    fill(lab)
    lab.put("a/notes.txt", b"notes")
    lab.put("notes.txt", b"notes")
    assert [each.relpath for each in prepared(lab, tmp_path).left_out] == ["a/notes.txt", "notes.txt"]


def test_an_unknown_snapshot_is_refused_with_the_nearest(lab: Lab, tmp_path: Path) -> None:
    fill(lab, count=1)
    known = lab.take().snapshot_id or ""
    with pytest.raises(DataError, match=known):
        prepared(lab, tmp_path, "20261123T000000000Z-00000000")
