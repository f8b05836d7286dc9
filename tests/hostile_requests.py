"""More than two hundred hostile or odd requests to an API, each as the bytes that are sent, made anew at each run."""

from __future__ import annotations

import io
import pickle
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
SIDE = 48


def hostile_requests() -> Iterator[tuple[str, bytes]]:
    """Names and bytes of whole requests."""
    for name, content in {**odd_pictures(), **bombs(), **broken_pictures(), **no_pictures()}.items():
        yield f"picture: {name}", post(content)
    for name, content in {"a picture": picture("JPEG"), "zero bytes": b"", "noise": bytes(range(256)) * 40}.items():
        for media_type in MEDIA_TYPES:
            yield f"{name} as {media_type[:40]!r}", post(content, {"Content-Type": media_type})
    yield from forms()
    yield from paths()
    yield from headers()
    yield from framing()


MEDIA_TYPES = (
    "image/png",
    "image/svg+xml",
    "application/octet-stream",
    "text/html",
    "application/json",
    "application/x-www-form-urlencoded",
    "multipart/mixed; boundary=x",
    "image/" + "x" * 4000,
    "image/png; charset=\xff\xfe",
    ";;;",
    "",
)


def post(content: bytes, headers: dict[str, str] | None = None, path: str = "/predict") -> bytes:
    """A request with this body."""
    told = {"Content-Type": "application/octet-stream", "Content-Length": str(len(content)), **(headers or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    return f"POST {path} HTTP/1.1\r\nHost: api\r\nConnection: close\r\n{lines}\r\n".encode("latin-1") + content


def get(path: str, lines: str = "", method: str = "GET", version: str = "HTTP/1.1") -> bytes:
    """A request without a body."""
    return f"{method} {path} {version}\r\nHost: api\r\nConnection: close\r\n{lines}\r\n".encode("latin-1")


def picture(kind: str, mode: str = "RGB", size: tuple[int, int] = (SIDE, SIDE), **options: Any) -> bytes:
    """A noisy picture's file."""
    noise = np.random.default_rng(0).integers(0, 256, (min(size[1], 200), min(size[0], 200), 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize(size).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def odd_pictures() -> dict[str, bytes]:
    """Pictures as they are, unusual ones."""
    found = {f"{kind}": picture(kind) for kind in FORMATS}
    for kind, mode in [
        ("JPEG", "CMYK"), ("JPEG", "L"), ("PNG", "L"), ("PNG", "LA"), ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "1"),
        ("PNG", "I;16"), ("TIFF", "CMYK"), ("TIFF", "F"), ("TIFF", "I;16"), ("TIFF", "1"), ("WEBP", "RGBA"),
        ("BMP", "1"),
        ("GIF", "P"), ("GIF", "L"), ("TIFF", "LAB"), ("PPM", "RGB"), ("ICO", "RGBA"), ("PCX", "P"), ("TGA", "RGBA"),
    ]:  # fmt: skip
        found[f"{kind} {mode}"] = picture(kind, mode)
    for size in [(1, 1), (1, 2), (2, 1), (1, 30_000), (30_000, 1), (3, 5000), (65_000, 1)]:
        found[f"{size[0]}x{size[1]}"] = picture("PNG", size=size)
    frames = [Image.fromarray(np.full((8, 8, 3), level, np.uint8)) for level in range(0, 250, 10)]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        buffer = io.BytesIO()
        frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
        found[f"animated {kind}"] = buffer.getvalue()
    for turned in range(0, 10):
        exif = Image.Exif()
        exif[0x0112] = turned
        found[f"EXIF orientation {turned}"] = picture("JPEG", exif=exif)
    found["JPEG, progressive"] = picture("JPEG", progressive=True)
    found["JPEG with a profile of rubbish"] = picture("JPEG", icc_profile=b"\xff" * 5000)
    found["PNG with much text"] = _png_with_text(3_000_000)
    found["TIFF, deflated"] = picture("TIFF", compression="tiff_adobe_deflate")
    found["TIFF, LZW"] = picture("TIFF", compression="tiff_lzw")
    return found


def bombs() -> dict[str, bytes]:
    """Little to send, much to unpack, or so they say."""
    found = {}
    for side in (7000, 20_000, 50_000, 100_000):
        found[f"PNG of {side} pixels a side"] = _png(side, side, zlib.compress(b"\0" * 100_000, 9))
        found[f"BMP that promises {side}"] = _bmp(side)
        found[f"GIF that promises {side}"] = b"GIF89a" + struct.pack("<HH", side & 0xFFFF, side & 0xFFFF) + b"\0\0\0;"
    found["PNG with the largest sides"] = _png(2**31 - 1, 2**31 - 1, b"")
    found["PNG with no sides"] = _png(0, 0, b"")
    found["PNG whose data unpack to 100 MB"] = _png(30, 30, zlib.compress(b"\0" * 100_000_000, 9))
    found["JPEG of 6000 pixels a side"] = picture("JPEG", "L", (6000, 6000), quality=5)
    found["WebP of 6000 pixels a side"] = picture("WEBP", size=(6000, 6000), quality=1)
    found["PNG whose text unpacks to 50 MB"] = _png_with_text(50_000_000)
    return found


def broken_pictures() -> dict[str, bytes]:
    """Cut off, overwritten, or two things at once."""
    found = {}
    for kind in FORMATS:
        whole = picture(kind)
        for share in (0.02, 0.1, 0.3, 0.6, 0.9, 0.99):
            found[f"{kind} cut off at {share:.0%}"] = whole[: int(len(whole) * share)]
        found[f"{kind} with a flipped head"] = bytes([whole[0] ^ 0xFF]) + whole[1:]
        found[f"{kind} with rubbish behind"] = whole + b"\xff" * 1000
        found[f"{kind}, every 97th byte wrong"] = bytes(
            byte ^ 0x55 if number % 97 == 50 else byte for number, byte in enumerate(whole)
        )
    found["GIF and JavaScript"] = b"GIF89a/*" + bytes(20) + b"*/=1;alert(1)//"
    found["JPEG and ZIP"] = picture("JPEG") + b"PK\x05\x06" + bytes(18)
    found["PNG and HTML"] = picture("PNG") + b"<script>alert(1)</script>"
    found["JPEG of nothing but its head"] = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(10)
    found["JPEG with endless markers"] = b"\xff\xd8" + b"\xff\xfe\x00\x02" * 200_000
    found["TIFF whose directory points at itself"] = b"II*\0\x08\0\0\0" + struct.pack("<H", 0) + struct.pack("<I", 8)
    found["TIFF with a directory of 65535"] = b"II*\0\x08\0\0\0" + struct.pack("<H", 65_535) + bytes(100)
    return found


def no_pictures() -> dict[str, bytes]:
    """What is none."""
    return {
        "nothing": b"",
        "one byte": b"\0",
        "a megabyte of zeros": bytes(2**20),
        "text": "Grüße".encode() * 100,
        "HTML": b"<!doctype html><img src=x onerror=alert(1)>",
        "SVG that includes a file": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "SVG of a billion laughs": b'<!DOCTYPE s [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]><svg>&b;</svg>',
        "a pickle": pickle.dumps({"weights": [1.0, 2.0]}),
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100000 100000\n(/etc/passwd) (r) file\n",
        "PDF": b"%PDF-1.7\n1 0 obj\n<</Type/Catalog>>\nendobj\n",
        "ELF": b"\x7fELF" + bytes(200),
        "ZIP": b"PK\x03\x04" + bytes(100),
        "JSON": b'{"image": "aGVsbG8="}',
        "HEIC": b"\0\0\0\x18ftypheic" + bytes(500),
        "MP4": b"\0\0\0\x18ftypmp42" + bytes(500),
        "FITS": b"SIMPLE  =                    T" + b" " * 2850,
    }


def forms() -> Iterator[tuple[str, bytes]]:
    """Multipart, well and badly made, for one picture and for a batch."""
    good = picture("JPEG")

    def part(name: str, content: bytes, more: str = 'filename="a"') -> bytes:
        return f'--x\r\nContent-Disposition: form-data; name="{name}"; {more}\r\n\r\n'.encode() + content + b"\r\n"

    bodies = {
        "a good one": part("file", good) + b"--x--\r\n",
        "no end": part("file", good),
        "no parts": b"--x--\r\n",
        "nothing": b"",
        "another field": part("image", good) + b"--x--\r\n",
        "a field that is no file": b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\ntext\r\n--x--\r\n',
        "two files": part("file", good) * 2 + b"--x--\r\n",
        "a thousand fields": b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' * 1000 + b"--x--\r\n",
        "a file name that climbs": part("file", good, 'filename="../../etc/passwd"') + b"--x--\r\n",
        "a file name with a NUL": part("file", good, 'filename="a\0b"') + b"--x--\r\n",
        "a name of 100 kB": part("file", good, f'filename="{"a" * 100_000}"') + b"--x--\r\n",
        "no disposition": b"--x\r\n\r\n" + good + b"\r\n--x--\r\n",
        "a head without end": b"--x\r\nContent-Disposition: form-data; name=" + b"a" * 50_000,
        "bare line feeds": b'--x\nContent-Disposition: form-data; name="file"; filename="a"\n\n' + good + b"\n--x--\n",
        "an encoding of its own": part("file", good, 'filename="a"\r\nContent-Transfer-Encoding: base64')
        + b"--x--\r\n",
        "another character set": part("file", good, "filename*=utf-99''%ff%fe") + b"--x--\r\n",
        "rubbish before": b"rubbish\r\n" + part("file", good) + b"--x--\r\n",
        "a batch in its field": part("files", good) * 3 + b"--x--\r\n",
        "a batch of forty": part("files", good) * 40 + b"--x--\r\n",
        "a batch with a broken one": part("files", good) + part("files", good[:200]) + b"--x--\r\n",
    }
    for path in ("/predict", "/predict/batch"):
        for name, body in bodies.items():
            yield f"form to {path}: {name}", post(body, {"Content-Type": "multipart/form-data; boundary=x"}, path)
    for boundary in ("", '""', "x" * 5000, "\xff", "a b", "--x", "x; boundary=y"):
        media_type = f"multipart/form-data; boundary={boundary}"
        yield f"boundary {boundary[:10]!r}", post(bodies["a good one"], {"Content-Type": media_type})
    yield "a form without a boundary", post(bodies["a good one"], {"Content-Type": "multipart/form-data"})


def paths() -> Iterator[tuple[str, bytes]]:
    """Where there is nothing, or nobody should be."""
    for path in [
        "/../etc/passwd", "/..%2f..%2fetc%2fpasswd", "/%2e%2e/%2e%2e/etc/passwd", "//predict", "/predict/",
        "/predict//batch", "/PREDICT", "/predict%00", "/%00", "/predict?x=" + "a" * 30_000, "/" + "a" * 60_000,
        "/docs/files/../../app.py",
        "/docs/files/%2e%2e/%2e%2e/etc/passwd", "/docs/files/..\\..\\x", "/weights", "/.env", "/openapi.json?",
        "/metrics/",
        "/health/..", "/\xff\xfe", "/predict#x", "http://elsewhere/predict", "*", "predict", "/docs/files/", "/%",
    ]:  # fmt: skip
        yield f"path {path[:30]!r}", get(path)
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "CONNECT", "BREW", "predict", "G" * 5000):
        yield f"method {method[:10]}", get("/predict", method=method)
    for path in ("/", "/health", "/metadata", "/metrics", "/docs"):
        yield f"POST to {path}", post(b"x", path=path)


def headers() -> Iterator[tuple[str, bytes]]:
    """Heads that are too much."""
    good = picture("JPEG")
    for name, more in {
        "one of 60 kB": {"X-Long": "a" * 60_000},
        "a thousand": {f"X-{number}": "a" for number in range(1000)},
        "a request id with line breaks": {"X-Request-ID": "a\r\n b"},
        "a request id that is HTML": {"X-Request-ID": "<script>"},
        "a request id without end": {"X-Request-ID": "a" * 5000},
        "another host": {"Host": "evil.example"},
        "forwarded from elsewhere": {"X-Forwarded-For": "1.2.3.4, 5.6.7.8", "X-Forwarded-Prefix": "//evil"},
        "compressed, it says": {"Content-Encoding": "gzip"},
        "a range": {"Range": "bytes=0-0,-1"},
        "an upgrade": {"Connection": "Upgrade", "Upgrade": "websocket"},
        "cookies": {"Cookie": "a=b; " * 2000},
        "a trace": {"traceparent": "00-" + "f" * 200},
        "an expectation": {"Expect": "200-maybe"},
    }.items():
        yield f"headers: {name}", post(good, more)


def framing() -> Iterator[tuple[str, bytes]]:
    """What is hardly HTTP."""
    good = picture("JPEG")
    start = b"POST /predict HTTP/1.1\r\nHost: api\r\nContent-Type: image/jpeg\r\n"
    chunked = start + b"Transfer-Encoding: chunked\r\n"
    yield "length: too large", start + b"Content-Length: 999999999999999999999\r\n\r\n" + good
    yield "length: over the limit", start + b"Content-Length: 20000000\r\n\r\n"
    yield "length: negative", start + b"Content-Length: -1\r\n\r\n" + good
    yield "length: words", start + b"Content-Length: many\r\n\r\n" + good
    yield "length: twice", start + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + good
    yield "length: more than comes", start + b"Content-Length: 100000\r\n\r\n" + good
    yield "length: less than comes", start + b"Content-Length: 10\r\n\r\n" + good
    yield "length: hexadecimal", start + b"Content-Length: 0x10\r\n\r\n" + good
    yield "chunks: good", chunked + b"\r\n" + b"%x\r\n" % len(good) + good + b"\r\n0\r\n\r\n"
    yield "chunks: no size", chunked + b"\r\nzz\r\n" + good
    yield "chunks: a size beyond all bounds", chunked + b"\r\nffffffffffffffffff\r\n" + good
    yield "chunks: no end", chunked + b"\r\n5\r\nhello\r\n"
    yield "chunks: negative", chunked + b"\r\n-5\r\nhello\r\n0\r\n\r\n"
    yield "chunks: extensions", chunked + b"\r\n5;" + b"a" * 10_000 + b"\r\nhello\r\n0\r\n\r\n"
    yield "chunks: over the limit", chunked + b"\r\nb00000\r\n" + bytes(0xB00000) + b"\r\n0\r\n\r\n"
    yield "chunks and a length", chunked + b"Content-Length: 4\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\n\r\n"
    yield "chunks, spelt otherwise", start + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"
    yield "HTTP/1.0", b"POST /predict HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(good) + good
    yield "HTTP/0.9", b"GET /\r\n"
    yield "HTTP/2 opens", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)
    yield "HTTP/9.9", get("/health", version="HTTP/9.9")
    yield "no host", b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n"
    yield "two requests at once", get("/health").replace(b"close", b"keep-alive") + get("/metadata")
    yield "a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300)
    yield "zeros", bytes(1000)
    yield "line breaks", b"\r\n" * 1000
    yield "a line without end", b"GET /" + b"a" * 200_000
    yield "a head without end", b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 5
    yield "spaces before a header", start + b" Content-Length: 3\r\n\r\nabc"
    yield "a header without a name", start + b": x\r\n\r\n"
    yield "a header with a NUL", start + b"X: a\0b\r\nContent-Length: 0\r\n\r\n"
    yield "bare line feeds", b"GET /health HTTP/1.1\nHost: api\nConnection: close\n\n"
    yield "nothing at all", b""


def _png(width: int, height: int, data: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _png_with_text(size: int) -> bytes:
    whole = picture("PNG")
    text = _chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * size, 9))
    return whole[:33] + text + whole[33:]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _bmp(side: int) -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
