"""From the bytes of a picture to the model's input, as Ultralytics' own `predict` does it (8.4.190).

Ultralytics decodes with OpenCV, then resizes and crops with Pillow through torchvision. Pillow decodes to the same
pixels, save where this module says otherwise, and refuses truncated files, which OpenCV fills with grey. One
difference is left: OpenCV blends the colours of a TIFF with its alpha, Pillow does not.
"""

import io
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

MAX_PIXELS: Final = 40_000_000
# What the trainer trains on. JPEG includes MPO, which many phones write.
FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
# A long strip scaled to the model's size may be far larger than the picture was.
MAX_RESIZED_PIXELS: Final = 16_000_000

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

# The size is checked below, for every format, before any pixel is decoded.
Image.MAX_IMAGE_PIXELS = None


class UnreadablePicture(ValueError):
    """The bytes are no picture that can be decoded; the message says why."""


def model_input(content: bytes, size: int, max_pixels: int = MAX_PIXELS) -> NDArray[np.float32]:
    """The picture as (3, size, size), RGB from 0 to 1; UnreadablePicture when it cannot be decoded."""
    pixels = np.asarray(_centre(decode(content, max_pixels), size))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32) / np.float32(255)


def decode(content: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture upright in RGB, alpha dropped; UnreadablePicture when it is none, is cut short or is too large."""
    if not content:
        raise UnreadablePicture("the picture is empty (0 bytes)")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            _check_size(picture, max_pixels)
            picture.load()
            return _upright(_rgb(picture), picture)
    except UnreadablePicture:
        raise
    except UnidentifiedImageError:
        raise UnreadablePicture(f"the bytes are not a picture in {', '.join(FORMATS)}") from None
    except Exception as cause:  # Pillow's decoders raise nearly anything on hostile bytes
        raise UnreadablePicture(f"the picture cannot be decoded ({type(cause).__name__}: {cause})") from None


def _check_size(picture: Image.Image, max_pixels: int) -> None:
    width, height = picture.size
    if width * height > max_pixels:
        raise UnreadablePicture(f"the picture has {width}x{height} pixels, more than {max_pixels:,}")


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
    stored = 255 - np.asarray(picture).astype(np.uint16)  # Pillow inverts what the file stores
    black = stored[..., 3:]
    return Image.fromarray((black - ((255 - stored[..., :3]) * black >> 8)).astype(np.uint8))


def _upright(rgb: Image.Image, source: Image.Image) -> Image.Image:
    """Turned as the EXIF block says. Not `getexif()`: it also believes XMP, which OpenCV does not read."""
    exif = Image.Exif()
    try:
        exif.load(source.info.get("exif", b""))
        turn = _UPRIGHT.get(exif.get(_EXIF_ORIENTATION, 1))
    except Exception:  # a broken EXIF block says nothing about the pixels
        turn = None
    return rgb if turn is None else rgb.transpose(turn)


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
