"""Around each request: its id, and its one log line."""

import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import log

HEADER = "X-Request-ID"
_ACCEPTABLE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class RequestLog:
    """Gives each request an id (the caller's own, if it is a sane one), returns it, and logs one line."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = Headers(scope=scope).get(HEADER, "")
        request_id = asked if _ACCEPTABLE_ID.fullmatch(asked) else uuid.uuid4().hex
        scope["log_fields"] = {}
        status = 0
        started = time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        failure: Exception | None = None
        try:
            await self._app(scope, receive, send_with_id)
        except Exception as cause:  # answered with 500 already; the traceback belongs to this line
            failure = cause
        _log_line(scope, request_id, status, time.perf_counter() - started, failure)


def _log_line(scope: Scope, request_id: str, status: int, seconds: float, failure: Exception | None) -> None:
    if scope["path"].endswith("/health") and status == 200:  # asked every second or two, for ever
        return
    log.event(
        "request",
        level=logging.ERROR if failure else logging.INFO,
        exc_info=failure,
        request_id=request_id,
        method=scope["method"],
        path=scope["path"],
        status=status,
        milliseconds=round(seconds * 1000, 1),
        **scope["log_fields"],
    )
