"""What cannot be trained on is refused with every problem at once."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import PIL
import pytest
from api import bodies, preprocess
from PIL import Image, ImageCms
from trainer import examinations, golden, pictures, preflight
from trainer.dataset import Picture
from trainer.errors import UnavailableError
from trainer.examinations import Examinations
from trainer.memory import for_pictures
from trainer.pictures import Examined, Format, NotAPicture, examine
from trainer.preflight import Decoded, Limits, Refused, decode, golden_problems, inspect, require
from trainer.remedies import OTHERWISE, remedy
from trainer.split import Division, Excluded, Sample
from trainer.termination import Terminated

ROOM = for_pictures()


def picture(
    path: Path, *, size: tuple[int, int] = (16, 16), form: str = "JPEG", mode: str = "RGB", compression: str = ""
) -> Path:
    options = {"compression": compression} if compression else {}
    noise = Image.effect_noise(size, 80)
    (noise if mode in {"I", "F"} else noise.convert("RGB")).convert(mode).save(path, form, **options)
    return path


def lab(path: Path) -> Path:
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    transform = ImageCms.buildTransform(*profiles, "RGB", "LAB")
    converted = ImageCms.applyTransform(Image.effect_noise((16, 16), 80).convert("RGB"), transform)
    assert converted is not None
    converted.save(path, "TIFF")
    return path


def deep(path: Path, shape: tuple[int, ...], suffix: str = ".tif") -> Path:
    pixels = np.random.default_rng(0).integers(0, 65536, shape, dtype=np.uint16)
    path.write_bytes(cv2.imencode(suffix, pixels)[1].tobytes())
    return path


def bomb(path: Path) -> Path:
    """A PNG that says that it is 30,000 x 30,000."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0" * 100)))
    return path


def truncated(path: Path) -> Path:
    content = picture(path, size=(200, 200)).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def with_bytes(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (truncated, "cannot be decoded"),
        (bomb, "million"),
        (lambda path: with_bytes(path, b""), "an empty file"),
        (lambda path: with_bytes(path, os.urandom(500)), "not a picture"),
        (lambda path: with_bytes(path, b"name,label\n1,cat\n"), "not a picture"),
        (lambda path: picture(path, size=(300, 9)), "300x9 pixels"),
        (lambda path: picture(path, form="GIF", mode="P"), "the format GIF"),
        (lambda path: picture(path, form="TIFF", mode="I"), "32 bits per channel"),
        (lambda path: picture(path, form="TIFF", mode="F"), "32 bits per channel"),
        (lambda path: picture(path, form="TIFF", mode="RGBA"), "a TIFF with transparency"),
        (lambda path: picture(path, form="TIFF", mode="LA"), "a TIFF with transparency"),
        (lambda path: picture(path, form="TIFF", mode="YCbCr"), "the colour space YCbCr"),
        (lambda path: lab(path), "the colour space LAB"),
        (lambda path: deep(path, (16, 16, 3)), "a TIFF with 16 bits per colour"),
        (lambda path: picture(path, form="TIFF", compression="zstd"), "OpenCV"),
    ],
    ids=[
        "truncated",
        "bomb",
        "empty",
        "noise",
        "text",
        "tiny",
        "format",
        "integers",
        "floats",
        "transparent",
        "grey+transparent",
        "YCbCr",
        "LAB",
        "deep",
        "zstd",
    ],
)
def test_a_file_that_cannot_be_trained_on_says_why(tmp_path: Path, make: object, cause: str) -> None:
    assert callable(make)
    with pytest.raises(NotAPicture, match=cause) as refused:
        examine(make(tmp_path / "file"), ROOM)
    assert refused.value.lasting
    assert remedy(str(refused.value)) != OTHERWISE


@pytest.mark.parametrize(
    ("form", "mode", "suffix"),
    [
        ("JPEG", "CMYK", ".jpg"),
        ("JPEG", "L", ".jpg"),
        ("PNG", "RGBA", ".png"),
        ("PNG", "P", ".png"),
        ("WEBP", "RGB", ".webp"),
        ("BMP", "RGB", ".bmp"),
        ("TIFF", "RGB", ".tif"),
    ],
)
def test_a_picture_gets_the_suffix_of_its_true_format(tmp_path: Path, form: str, mode: str, suffix: str) -> None:
    path = picture(tmp_path / "file.wrong", form=form, mode=mode, size=(20, 16))
    assert examine(path, ROOM) == Examined(Format(suffix, whole=True), 20, 16)


def test_a_jpeg_without_its_end_marker_is_told_as_not_whole(tmp_path: Path) -> None:
    path = picture(tmp_path / "file")
    path.write_bytes(path.read_bytes() + b"trailing")
    assert examine(path, ROOM).format == Format(".jpg", whole=False)


@pytest.mark.parametrize(("shape", "suffix"), [((16, 16), ".tif"), ((16, 16), ".png"), ((16, 16, 3), ".png")])
def test_16_bits_that_everyone_reads_alike_are_taken(tmp_path: Path, shape: tuple[int, ...], suffix: str) -> None:
    assert examine(deep(tmp_path / "file", shape, suffix), ROOM).format.suffix == suffix


def test_golden_pictures_are_among_those_that_the_api_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (pictures.API_MAX_BYTES, pictures.API_MAX_PIXELS) == (bodies.MAX_BODY_BYTES, preprocess.MAX_PIXELS)
    small = picture(tmp_path / "small", size=(20, 20))
    wide = picture(tmp_path / "wide", size=(30, 20))
    heavy = with_bytes(tmp_path / "heavy", small.read_bytes() + b"0" * 10_000)
    monkeypatch.setattr(pictures, "API_MAX_PIXELS", 400)
    monkeypatch.setattr(pictures, "API_MAX_BYTES", 10_000)
    found = [Picture(str(n), path.name, path.name, path) for n, path in enumerate((heavy, small, wide))]
    assert [each.relpath for each in golden.choose(found)] == ["small"]
    sizes = {path: (path.stat().st_size, examine(path, ROOM)) for path in (heavy, small, wide)}
    assert golden_problems(sizes.values()) == []
    [problem] = golden_problems([sizes[heavy], sizes[wide]])
    assert "every validation picture is too large for the API" in problem


class Host:
    """A host that decodes pictures, its memory, and the paths that it has decoded."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.memory = folder / "pictures.db"
        self.decoded: list[str] = []

        def noting(path: Path, room: object) -> Examined:
            self.decoded.append(path.name)
            return self.examine(path)

        monkeypatch.setattr(preflight, "examine", noting)

    def examine(self, path: Path) -> Examined:
        return examine(path, ROOM)

    def decode(self, *md5s: str) -> Decoded:
        """Decode these contents in a run of their own."""
        with examinations.opened(self.memory) as known:
            return self.decode_with(known, *md5s)

    def decode_with(self, known: Examinations, *md5s: str) -> Decoded:
        return decode(md5s, lambda md5: self.folder / md5, known)


GOOD, OTHER, BAD = "1" * 32, "2" * 32, "b" * 32


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host with two good contents and a bad one, of which it knows nothing yet."""
    picture(tmp_path / GOOD)
    picture(tmp_path / OTHER, size=(30, 20), form="PNG")
    truncated(tmp_path / BAD)
    return Host(tmp_path, monkeypatch)


def test_decoding_tells_good_from_bad(host: Host) -> None:
    decoded = host.decode(GOOD, OTHER, BAD)
    assert decoded.good == {
        GOOD: Examined(Format(".jpg", whole=True), 16, 16),
        OTHER: Examined(Format(".png", whole=True), 30, 20),
    }
    assert list(decoded.causes) == [BAD]
    assert decoded.anew == 3


def test_what_a_host_has_decoded_it_does_not_decode_again(host: Host) -> None:
    first = host.decode(GOOD, OTHER, BAD)
    host.decoded.clear()
    again = host.decode(GOOD, OTHER, BAD)
    assert (again.good, again.causes, again.anew) == (first.good, first.causes, 0)
    assert host.decoded == []


def test_only_what_is_new_is_decoded(host: Host) -> None:
    host.decode(GOOD, BAD)
    host.decoded.clear()
    assert host.decode(GOOD, OTHER, BAD).anew == 1
    assert host.decoded == [OTHER]


def test_another_pillow_or_opencv_or_other_rules_decode_anew_and_the_former_are_still_known(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.decode(GOOD)
    with monkeypatch.context() as other:
        other.setattr(pictures, "RULES", "other rules")
        assert host.decode(GOOD).anew == 1
        assert host.decode(GOOD).anew == 0
    assert host.decode(GOOD).anew == 0
    assert all(version in pictures.RULES for version in (PIL.__version__, cv2.__version__))


def test_rules_that_are_long_out_of_use_are_forgotten(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    for rules in ("oldest", *map(str, range(examinations.KEPT_RULES))):
        monkeypatch.setattr(pictures, "RULES", rules)
        host.decode(GOOD)
    with sqlite3.connect(host.memory) as database:
        assert database.execute("SELECT count(*) FROM pictures").fetchall() == [(examinations.KEPT_RULES,)]


def test_a_killed_run_keeps_what_it_has_decoded(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examinations, "KEEP_SECONDS", 0)
    with examinations.opened(host.memory) as known:
        host.decode_with(known, GOOD, OTHER)
        # Before the end of the block, which a SIGKILL does not reach.
        assert host.decode(GOOD, OTHER).anew == 0


def test_a_run_that_is_stopped_keeps_what_it_has_decoded(host: Host) -> None:
    with contextlib.suppress(Terminated), examinations.opened(host.memory) as known:
        host.decode_with(known, GOOD, OTHER)
        raise Terminated
    assert host.decode(GOOD, OTHER).anew == 0


@pytest.mark.parametrize("error", [MemoryError(), OSError("out of memory error when reading image file")])
def test_a_picture_for_which_the_memory_did_not_do_is_tried_again(
    host: Host, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as little:
        little.setattr(pictures, "_decode", fail)
        assert GOOD in host.decode(GOOD).causes
    assert GOOD in host.decode(GOOD).good


def test_a_disk_that_cannot_be_read_makes_no_bad_picture(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(pictures, "_decode", fail)
        with pytest.raises(UnavailableError, match=f"{GOOD} cannot be read .Input/output error"):
            host.decode(GOOD)
    assert GOOD in host.decode(GOOD).good


def test_a_memory_that_is_damaged_inside_costs_one_run_and_is_begun_anew(host: Host) -> None:
    host.decode(GOOD)
    with host.memory.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(host.memory.stat().st_size - 4096))
    assert GOOD in host.decode(GOOD).good
    host.decode(GOOD)
    assert host.decode(GOOD).anew == 0


def test_a_memory_that_cannot_be_written_or_read_costs_what_it_would_remember_and_nothing_else(host: Host) -> None:
    with examinations.opened(host.memory) as known:
        with sqlite3.connect(host.memory, isolation_level=None) as other:
            other.execute("DROP TABLE pictures")  # any error will do
        assert host.decode_with(known, GOOD, OTHER).anew == 2


def division(train: dict[str, int], val: dict[str, int]) -> Division:
    def samples(split: str, counts: dict[str, int]) -> tuple[Sample, ...]:
        return tuple(
            Sample(f"{split}{n}", f"{label}/{split}{n}", label) for label in counts for n in range(counts[label])
        )

    return Division(samples("t", train), samples("v", val), (), (), ())


def problems(divided: Division, labels: str, bad: list[Excluded] | None = None, share: float = 0.1) -> str:
    with pytest.raises(Refused) as refused:
        require(preflight.problems(inspect(divided, bad or []), labels, Limits(5, share)))
    return str(refused.value)


def test_a_dataset_without_problems_passes() -> None:
    report = inspect(division({"a": 4, "b": 4}, {"a": 1, "b": 1}), [])
    require(preflight.problems(report, "ab", Limits(5, 0.0)))


def test_one_class_is_refused() -> None:
    assert "it has one class ('a'), at least two" in problems(division({"a": 9}, {"a": 2}), "a")


def test_an_empty_class_is_refused_and_its_files_are_named() -> None:
    bad = [Excluded("b/x.png", "not a picture")]
    message = problems(division({"a": 30}, {"a": 5}), "ab", bad)
    assert "the class 'b' is empty" in message
    assert "b/x.png (not a picture)" in message


@pytest.mark.parametrize(("train", "val", "split"), [({"b": 9}, {}, "val"), ({}, {"b": 9}, "train")])
def test_a_class_missing_from_a_split_is_refused(train: dict[str, int], val: dict[str, int], split: str) -> None:
    assert f"the class 'b' has no picture in {split}" in problems(division({"a": 9, **train}, {"a": 2, **val}), "ab")


def test_every_problem_is_told_at_once() -> None:
    message = problems(division({"a": 2, "b": 9}, {"a": 1}), "ab")
    assert "'a' has 3 pictures, at least 5" in message
    assert "'b' has no picture in val" in message


def test_too_many_bad_files_are_refused_with_the_first_ten_named_and_all_counted() -> None:
    bad = [Excluded(f"a/bad{n:02}.png", "not a picture") for n in range(12)]
    message = problems(division({"a": 9, "b": 9}, {"a": 2, "b": 2}), "ab", bad)
    assert "12 of 34 files (35.3%)" in message
    assert "a/bad09.png" in message
    assert "a/bad10.png" not in message
    assert "and 2 more" in message


def test_bad_files_under_the_share_are_left_out_and_listed() -> None:
    report = inspect(division({"a": 9, "b": 9}, {"a": 2, "b": 2}), [Excluded("a/bad.png", "not a picture")])
    require(preflight.problems(report, "ab", Limits(5, 0.1)))
    assert [(each.relpath, each.cause) for each in report.bad_files] == [("a/bad.png", "not a picture")]
    assert report.counts == {"train": {"a": 9, "b": 9}, "val": {"a": 2, "b": 2}}
