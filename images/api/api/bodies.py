"""The picture in a request's body, raw or as the field `file` of a form, bounded in size and time."""

import asyncio
import io
from collections.abc import AsyncGenerator
from http import HTTPStatus

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from api.problems import Problem

MAX_BODY_BYTES = 10 * 1024 * 1024
BODY_SECONDS = 30
FORM = "multipart/form-data"
FIELD = "file"

OPENAPI_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {FIELD: {"type": "string", "format": "binary"}},
                }
            },
        },
    }
}


class _InMemoryParser(MultiPartParser):
    spool_max_size = MAX_BODY_BYTES  # the root of the container is read-only, and /tmp counts as memory


def expected_bytes(request: Request) -> int:
    """The most that the body may hold; a Problem when its headers promise too much or another type."""
    media_type = _media_type(request)
    if not (media_type in ("", "application/octet-stream", FORM) or media_type.startswith("image/")):
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"The body has the type {media_type}. Send the picture itself as image/* or application/octet-stream, "
            f"or as the field `{FIELD}` of multipart/form-data.",
        )
    declared = request.headers.get("content-length", "")
    if not declared.isdecimal():
        return MAX_BODY_BYTES
    if int(declared) > MAX_BODY_BYTES:
        raise _too_large()
    return int(declared)


async def picture_in(request: Request) -> bytes:
    """The bytes of the picture; a Problem when there is none or the body is too large or too slow."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await (_field_of_form(request) if _media_type(request) == FORM else _whole_body(request))
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


async def _field_of_form(request: Request) -> bytes:
    try:
        form = await _InMemoryParser(request.headers, _chunks(request), max_files=1, max_fields=8).parse()
    except (MultiPartException, KeyError, ValueError) as cause:
        reason = cause.message if isinstance(cause, MultiPartException) else "it has no usable boundary"
        raise Problem(HTTPStatus.BAD_REQUEST, f"The form cannot be read ({reason}). Send one file.") from None
    upload = form.get(FIELD)
    content = await upload.read() if isinstance(upload, UploadFile) else None
    await form.close()
    if content is None:
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"The form has no file in the field `{FIELD}`. Put the picture there."
        )
    return content


def _too_large() -> Problem:
    return Problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"The body is larger than {MAX_BODY_BYTES:,} bytes. Send a smaller picture.",
        {"Connection": "close"},  # else the rest of the body would have to be read
    )
