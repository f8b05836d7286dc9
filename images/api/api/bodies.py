"""Pictures in a request's body, raw or as fields of a form, bounded in number, size and time."""

import asyncio
import io
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from api.problems import Problem

MAX_BODY_BYTES = 10 * 1024 * 1024
BODY_SECONDS = 30
FORM = "multipart/form-data"
FIELD = "file"
BATCH_FIELD = "files"
MAX_BATCH = 32

OPENAPI_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            FORM: {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {FIELD: {"type": "string", "format": "binary"}},
                }
            },
        },
    }
}


OPENAPI_BATCH_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            FORM: {
                "schema": {
                    "type": "object",
                    "required": [BATCH_FIELD],
                    "properties": {
                        BATCH_FIELD: {
                            "type": "array",
                            "minItems": 1,
                            "maxItems": MAX_BATCH,
                            "items": {"type": "string", "format": "binary"},
                        }
                    },
                }
            }
        },
    }
}


class _InMemoryParser(MultiPartParser):
    spool_max_size = MAX_BODY_BYTES  # the root of the container is read-only, and /tmp counts as memory


def declared_bytes(headers: Headers) -> int:
    """What the body may take by its Content-Length, or where that says nothing of use: what any body may."""
    declared = headers.get("content-length", "")
    return min(int(declared), MAX_BODY_BYTES) if declared.isdecimal() else MAX_BODY_BYTES


def check_headers(request: Request) -> None:
    """A Problem when the headers promise too much or something other than a picture."""
    media_type = _media_type(request)
    if not (media_type in ("", "application/octet-stream", FORM) or media_type.startswith("image/")):
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"The body has the type {media_type}. Send the picture itself as image/* or application/octet-stream, "
            f"or as the field `{FIELD}` of multipart/form-data.",
        )
    _check_size(request)


def check_batch_headers(request: Request) -> None:
    """As `check_headers`, of a body that has to be a form."""
    if _media_type(request) != FORM:
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"The body has the type {_media_type(request) or 'none'}. Send the pictures as fields `{BATCH_FIELD}` of "
            "multipart/form-data.",
        )
    _check_size(request)


def _check_size(request: Request) -> None:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > MAX_BODY_BYTES:
        raise _too_large()


async def picture_in(request: Request) -> bytes:
    """The bytes of the picture; a Problem when there is none or the body is too large or too slow."""
    async with _in_time():
        if _media_type(request) != FORM:
            return await _whole_body(request)
        found = await _files_of_form(request, FIELD, 1)
    return found[0]


async def pictures_in(request: Request) -> list[bytes]:
    """The bytes of each picture of a batch, in order; a Problem as in `picture_in`, or when there are too many."""
    async with _in_time():
        return await _files_of_form(request, BATCH_FIELD, MAX_BATCH)


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(BODY_SECONDS):
            yield
    except TimeoutError:
        raise Problem(
            HTTPStatus.REQUEST_TIMEOUT,
            f"The body did not arrive within {BODY_SECONDS} s. Send it again.",
            {"Connection": "close"},
        ) from None
    except ClientDisconnect:
        raise Problem(HTTPStatus.BAD_REQUEST, "The connection closed before the body ended.") from None


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _chunks(request: Request) -> AsyncGenerator[bytes, None]:
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > MAX_BODY_BYTES:
            raise _too_large()
        yield chunk


async def _whole_body(request: Request) -> bytes:
    body = io.BytesIO()  # hands its bytes out without a copy, unlike a bytearray
    async for chunk in _chunks(request):
        body.write(chunk)
    return body.getvalue()


async def _files_of_form(request: Request, field: str, most: int) -> list[bytes]:
    try:
        form = await _InMemoryParser(request.headers, _chunks(request), max_files=most, max_fields=8).parse()
    except (MultiPartException, KeyError, ValueError) as cause:
        reason = cause.message if isinstance(cause, MultiPartException) else "it has no usable boundary"
        files = "one file" if most == 1 else f"at most {most} files"
        raise Problem(HTTPStatus.BAD_REQUEST, f"The form cannot be read ({reason}). Send {files}.") from None
    contents = [await upload.read() for upload in form.getlist(field) if isinstance(upload, UploadFile)]
    await form.close()
    if not contents:
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"The form has no file in the field `{field}`. Put the picture there."
        )
    return contents


def _too_large() -> Problem:
    return Problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"The body is larger than {MAX_BODY_BYTES:,} bytes. Send a smaller picture.",
        {"Connection": "close"},  # else the rest of the body would have to be read
    )
