"""From the bytes of a picture to the model's input, as Ultralytics' own `predict` does it (8.4.190).

Ultralytics decodes with OpenCV, then resizes and crops with Pillow through torchvision. Pillow decodes to the same
pixels, save where this module says otherwise, and refuses truncated files, which OpenCV fills with grey. One
difference is left: OpenCV blends the colours of a TIFF with its alpha, Pillow does not.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from api.memory import Memory

MAX_PIXELS: Final = 40_000_000
# What the trainer trains on. JPEG includes MPO, which many phones write.
FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
# A long strip scaled to the model's size may be far larger than the picture was.
MAX_RESIZED_PIXELS: Final = 16_000_000

# The worst measured with Pillow, of any kind of file: 4 for RGB, and 8 for a progressive CMYK JPEG's coefficients or a
# TIFF that is one strip of 16 bits a channel. WebP's decoder keeps two canvases, its own pixels and a copy for Pillow.
BYTES_PER_PIXEL: Final = 12
BYTES_PER_PIXEL_OF_WEBP: Final = 20
# A pointer a row, of two pictures; two rows of up to 8 bytes a pixel in the decoder of PNG.
BYTES_PER_ROW_AND_COLUMN: Final = 16
STRIP_ROWS: Final = 64

_EXIF_ORIENTATION: Final = 0x0112
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Texts are unpacked before any size is known: 64 MiB by default, out of a file of 64 KiB.
PngImagePlugin.MAX_TEXT_MEMORY = PngImagePlugin.MAX_TEXT_CHUNK
# The size is checked below, for every format, before any pixel is decoded.
Image.MAX_IMAGE_PIXELS = None


class UnreadablePicture(ValueError):
    """The bytes are no picture that can be decoded; the message says why."""


def model_input(content: bytes, size: int, memory: Memory, max_pixels: int = MAX_PIXELS) -> NDArray[np.float32]:
    """The picture as (3, size, size), RGB from 0 to 1; UnreadablePicture when it cannot be decoded."""
    with decoded(content, memory, max_pixels) as picture:
        pixels = np.asarray(_centre(picture, size))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32) / np.float32(255)


@contextmanager
def decoded(content: bytes, memory: Memory, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """The picture upright in RGB, alpha dropped, while its memory is lent.

    UnreadablePicture when it is none, is cut short or is too large.
    """
    if not content:
        raise UnreadablePicture("the picture is empty (0 bytes)")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            needed = _bytes_to_decode(picture, len(content))
            _check_size(picture, max_pixels, needed, memory.size)
            with memory.lent(needed):
                picture.load()
                yield _upright(picture)
    except UnreadablePicture:
        raise
    except UnidentifiedImageError:
        raise UnreadablePicture(f"the bytes are not a picture in {', '.join(FORMATS)}") from None
    except Exception as cause:  # Pillow's decoders raise nearly anything on hostile bytes
        raise UnreadablePicture(f"the picture cannot be decoded ({type(cause).__name__}: {cause})") from None


def _check_size(picture: Image.Image, max_pixels: int, needed: int, memory_bytes: int) -> None:
    width, height = picture.size
    if width * height > max_pixels:
        raise UnreadablePicture(f"the picture has {width}x{height} pixels, more than {max_pixels:,}")
    if needed > memory_bytes:
        raise UnreadablePicture(
            f"the picture has {width}x{height} pixels, which take {needed >> 20:,} MiB to decode, and this container "
            f"has {memory_bytes >> 20:,} MiB for it: make the picture smaller or the container's memory limit larger"
        )


def _bytes_to_decode(picture: Image.Image, file_bytes: int) -> int:
    """The most that decoding, converting and turning the picture may take at once."""
    width, height = picture.size
    each = BYTES_PER_PIXEL_OF_WEBP if picture.format == "WEBP" else BYTES_PER_PIXEL
    # The decoders of TIFF and WebP copy the file.
    return each * width * height + BYTES_PER_ROW_AND_COLUMN * (width + height) + file_bytes


def _upright(picture: Image.Image) -> Image.Image:
    rgb, turn = _rgb(picture), _turn(picture)
    if rgb is not picture:
        picture.close()  # frees its pixels: turning needs room for a second picture, not for a third
    return rgb if turn is None else rgb.transpose(turn)


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "RGB":
        return picture
    if picture.mode.startswith("I;16"):
        # convert() would clip at 255; OpenCV keeps the high byte.
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        raise UnreadablePicture("the picture has 32 bits per channel, which the model was not trained on")
    if picture.mode == "CMYK" and picture.format in ("JPEG", "MPO"):
        return _rgb_of_cmyk_jpeg(picture)
    return picture.convert("RGB")


def _rgb_of_cmyk_jpeg(picture: Image.Image) -> Image.Image:
    """OpenCV's own arithmetic (icvCvt_CMYK2BGR): Pillow's differs by one in places."""
    rgb = Image.new("RGB", picture.size)
    for top in range(0, picture.height, STRIP_ROWS):  # numpy needs twelve bytes more for each pixel at once
        strip = picture.crop((0, top, picture.width, min(top + STRIP_ROWS, picture.height)))
        stored = 255 - np.asarray(strip).astype(np.uint16)  # Pillow inverts what the file stores
        black = stored[..., 3:]
        rgb.paste(Image.fromarray((black - ((255 - stored[..., :3]) * black >> 8)).astype(np.uint8)), (0, top))
    return rgb


def _turn(picture: Image.Image) -> Image.Transpose | None:
    """What its EXIF block asks for. Not `getexif()`: it also believes XMP, which OpenCV does not read."""
    exif = Image.Exif()
    try:
        exif.load(picture.info.get("exif", b""))
        return _UPRIGHT.get(exif.get(_EXIF_ORIENTATION, 1))
    except Exception:  # a broken EXIF block says nothing about the pixels
        return None


def _centre(picture: Image.Image, size: int) -> Image.Image:
    """The shortest side scaled to `size`, then the square in the middle: torchvision's Resize and CenterCrop."""
    width, height = picture.size
    short = min(width, height)
    resized = (int(size * width / short), int(size * height / short))
    left, top = round((resized[0] - size) / 2), round((resized[1] - size) / 2)
    if resized[0] * resized[1] > MAX_RESIZED_PIXELS:
        return _centre_of_strip(picture, size, resized, (left, top))
    if resized != picture.size:
        picture = picture.resize(resized, Image.Resampling.BILINEAR)
    return picture.crop((left, top, left + size, top + size))


def _centre_of_strip(picture: Image.Image, size: int, resized: tuple[int, int], corner: tuple[int, int]) -> Image.Image:
    """The same square without the strip's ends, which nobody would see: equal but for Pillow's float32 box."""
    across, down = picture.width / resized[0], picture.height / resized[1]
    left, top = corner
    box = (left * across, top * down, (left + size) * across, (top + size) * down)
    return picture.resize((size, size), Image.Resampling.BILINEAR, box=box)
