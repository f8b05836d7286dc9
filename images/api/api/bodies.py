"""The picture in a request's body, raw or as the field `file` of a form, bounded in size and time."""

import asyncio
from collections.abc import AsyncGenerator
from http import HTTPStatus

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from api.problems import Problem

MAX_BODY_BYTES = 10 * 1024 * 1024
BODY_SECONDS = 30
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
    spool_max_size = MAX_BODY_BYTES  # the body is in memory already; a temporary file would be a second copy


async def picture_in(request: Request) -> bytes:
    """The bytes of the picture; a Problem when there is none or the body is too large, too slow or of another type."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    form = media_type == "multipart/form-data"
    if not (form or media_type in ("", "application/octet-stream") or media_type.startswith("image/")):
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"The body has the type {media_type}. Send the picture itself as image/* or application/octet-stream, "
            f"or as the field `{FIELD}` of multipart/form-data.",
        )
    body = await _body_in_time(request)
    return await _field_of_form(request, body) if form else body


async def _body_in_time(request: Request) -> bytes:
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _bounded_body(request)
    except TimeoutError:
        raise Problem(
            HTTPStatus.REQUEST_TIMEOUT,
            f"The body did not arrive within {BODY_SECONDS} s. Send it again.",
            {"Connection": "close"},
        ) from None
    except ClientDisconnect:
        raise Problem(HTTPStatus.BAD_REQUEST, "The connection closed before the body ended.") from None


async def _bounded_body(request: Request) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > MAX_BODY_BYTES:
        raise _too_large()
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise _too_large()
    return bytes(body)


async def _field_of_form(request: Request, body: bytes) -> bytes:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        form = await _InMemoryParser(request.headers, stream(), max_files=1, max_fields=8).parse()
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
