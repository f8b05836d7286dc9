"""Around each request: its id, and its one log line."""

import logging
import random
import re
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import log
from api.admission import prediction_path
from api.metrics import Metrics

HEADER = "X-Request-ID"
REGULARLY_ASKED = ("/health", "/metrics")
_ACCEPTABLE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class RequestLog:
    """Gives each request an id (the caller's own, if it is a sane one), returns it, logs one line, and counts it."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = Headers(scope=scope).get(HEADER, "")
        request_id = asked if _ACCEPTABLE_ID.fullmatch(asked) else f"{random.getrandbits(128):032x}"
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
        self._metrics.requests.labels(_route(scope), str(status)).inc()
        _log_line(scope, request_id, status, time.perf_counter() - started, failure)


def _route(scope: Scope) -> str:
    """The route's own path, not the one asked for, of which there is no end."""
    if route := scope.get("route"):
        return str(route.path)
    return prediction_path(scope) or "none"


def _log_line(scope: Scope, request_id: str, status: int, seconds: float, failure: Exception | None) -> None:
    if scope["path"].endswith(REGULARLY_ASKED) and status == 200:  # for ever
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
