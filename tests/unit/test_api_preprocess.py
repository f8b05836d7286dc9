from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from api import preprocess
from api.memory import Memory
from api.preprocess import UnreadablePicture, decoded
from api.preprocess import model_input as model_input_within
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from tests.classifiers import encoded

MEMORY = Memory(1 << 32)


def model_input(content: bytes, size: int) -> NDArray[np.float32]:
    return model_input_within(content, size, MEMORY)


def decode(content: bytes, max_pixels: int = preprocess.MAX_PIXELS) -> Image.Image:
    with decoded(content, MEMORY, max_pixels) as picture:
        return picture


def gradient(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises a size and holds nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([1, 32, 64]))
def test_every_picture_becomes_a_square_of_numbers_from_0_to_1(width: int, height: int, size: int) -> None:
    result = model_input(encoded(gradient(width, height), "BMP"), size)
    assert result.shape == (3, size, size)
    assert result.dtype == np.float32
    assert result.min() >= 0
    assert result.max() <= 1


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(100, 900), st.booleans(), st.sampled_from([32, 64]))
def test_a_long_strip_is_scaled_in_little_memory_to_the_same_square(
    short: int, long: int, upright: bool, size: int
) -> None:
    strip = gradient(short, long) if upright else gradient(long, short)
    content = encoded(strip, "BMP")
    whole = model_input(content, size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preprocess, "MAX_RESIZED_PIXELS", 0)
        part = model_input(content, size)
    assert np.abs(whole - part).max() <= 1.01 / 255


def test_a_picture_of_one_by_thirty_thousand_pixels_is_scored() -> None:
    assert model_input(encoded(Image.new("L", (1, 30_000), 255), "PNG"), 224).min() == 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_picture_is_turned_upright_as_its_exif_says(orientation: int, kind: str) -> None:
    # Red on the left, blue on the right, once upright.
    upright = np.zeros((40, 60, 3), np.uint8)
    upright[:, :30, 0] = upright[:, 30:, 2] = 255
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }.get(orientation)
    stored = Image.fromarray(upright) if undo is None else Image.fromarray(upright).transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    shown = np.asarray(decode(encoded(stored, kind, exif=exif))).astype(int)
    assert shown.shape == (40, 60, 3)
    assert shown[20, 5, 0] > 200 > 100 > shown[20, 5, 2]
    assert shown[20, 55, 2] > 200 > 100 > shown[20, 55, 0]


def test_a_broken_exif_block_does_not_hide_the_picture() -> None:
    content = encoded(gradient(20, 20), "JPEG", exif=b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xff")
    assert decode(content).size == (20, 20)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_a_white_picture_is_white_in_every_mode(mode: str) -> None:
    white = Image.new("RGB", (8, 8), "white")
    picture = Image.fromarray(np.full((8, 8), 65535, np.uint16)) if mode == "I;16" else white.convert(mode)
    kind = "JPEG" if mode == "CMYK" else "PNG"
    assert model_input(encoded(picture, kind), 8).min() > 0.98


def test_sixteen_bits_keep_their_high_byte() -> None:
    grey = np.array([[0x0000, 0x12FF], [0x8000, 0xFFFF]], np.uint16)
    assert np.asarray(decode(encoded(Image.fromarray(grey), "PNG")))[..., 0].tolist() == [[0, 0x12], [0x80, 0xFF]]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_a_truncated_picture_is_refused(kind: str) -> None:
    content = encoded(gradient(100, 100), kind)
    with pytest.raises(UnreadablePicture):
        decode(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "empty"),
        (b"\x00" * 1000, "not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        (encoded(Image.new("P", (4, 4)), "GIF"), "not a picture"),
        (encoded(Image.new("F", (4, 4)), "TIFF"), "32 bits"),
        (png_header(30_000, 30_000), "30000x30000"),
        (png_header(8_000, 5_001), "40,000,000"),
    ],
)
def test_what_is_no_usable_picture_is_refused_with_its_cause(content: bytes, cause: str) -> None:
    with pytest.raises(UnreadablePicture, match=cause):
        decode(content)


@settings(deadline=None)
@given(st.data())
def test_damaged_pictures_are_decoded_or_refused_and_never_crash(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "BMP", "TIFF"]))
    content = bytearray(encoded(gradient(30, 20), kind))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert model_input(bytes(content), 16).shape == (3, 16, 16)
    except UnreadablePicture as refusal:
        assert str(refusal)  # noqa: PT017 - either end is right


def test_a_picture_within_the_limit_of_the_trainer_is_accepted_where_asked() -> None:
    content = io.BytesIO()
    Image.new("1", (8_000, 5_001)).save(content, "PNG")
    assert decode(content.getvalue(), max_pixels=100_000_000).size == (8_000, 5_001)


def test_a_picture_that_needs_more_than_the_container_has_is_refused_with_both_numbers() -> None:
    content = encoded(Image.new("L", (4000, 3000)), "JPEG")
    with (
        pytest.raises(UnreadablePicture, match=r"4000x3000.*137 MiB.*100 MiB"),
        decoded(content, Memory(100 << 20)),
    ):
        pass


@pytest.mark.parametrize(("width", "height"), [(1, 2_000_000), (2_000_000, 1)])
def test_what_rows_and_columns_cost_counts_too(width: int, height: int) -> None:
    content = encoded(Image.new("L", (width, height)), "PNG")
    with pytest.raises(UnreadablePicture, match="MiB to decode"), decoded(content, Memory(30 << 20)):
        pass


def test_texts_that_unpack_to_megabytes_are_refused() -> None:
    texts = PngImagePlugin.PngInfo()
    for number in range(8):
        texts.add_text(f"text {number}", "x" * 500_000, zip=True)
    with pytest.raises(UnreadablePicture, match="text"):
        decode(encoded(Image.new("L", (4, 4)), "PNG", pnginfo=texts))


PEAK = """
import sys
from pathlib import Path
from api import limits, preprocess
from api.memory import Memory
content = Path(sys.argv[1]).read_bytes()
before = limits.peak_bytes()
preprocess.model_input(content, 64, Memory(1 << 40))
print(limits.peak_bytes() - before)
"""
TURNED = Image.Exif()
TURNED[0x0112] = 6


@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        ("CMYK", "JPEG", {}),
        ("CMYK", "JPEG", {"progressive": True, "exif": TURNED}),
        ("RGB", "JPEG", {"progressive": True, "subsampling": 0, "exif": TURNED}),
        ("RGBA", "PNG", {"exif": TURNED}),
        ("RGB", "PNG", {"exif": TURNED}),
        ("RGBA", "TIFF", {"compression": "tiff_lzw", "strip_size": 1 << 30, "exif": TURNED}),
        ("RGBA", "WEBP", {"lossless": True, "method": 0, "exif": TURNED}),
    ],
)
def test_decoding_takes_no_more_memory_than_is_lent_for_it(
    tmp_path: Path, mode: str, kind: str, options: dict[str, Any]
) -> None:
    path = tmp_path / "picture"
    path.write_bytes(encoded(gradient(1500, 1000).resize((3000, 2000)).convert(mode), kind, **options))
    with Image.open(path) as picture:
        lent = preprocess._bytes_to_decode(picture, path.stat().st_size)
    environment = {"PYTHONPATH": str(Path(preprocess.__file__).parents[1]), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", PEAK, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    overhead = 8 << 20  # decoders' tables and libraries loaded at the first picture
    assert int(done.stdout) <= lent + overhead
