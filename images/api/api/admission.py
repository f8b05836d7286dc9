"""What a picture meets first: a place among those that are being worked on, or a refusal that costs next to nothing.

It stands before the framework because under overload most requests end here: with four times as many as can be served,
each refusal by a route of the framework took three times as long, off the core that serves the rest.
"""

from contextlib import ExitStack
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.app import RETRY_SECONDS, State
from api.bodies import declared_bytes
from api.inference import Overloaded
from api.problems import MEDIA_TYPE, Problem, details

PREDICTIONS = ("/predict", "/predict/batch")

_REFUSAL = Problem(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "As many pictures as this server takes at once are being worked on. Ask again in a moment.",
    {"Retry-After": RETRY_SECONDS},
)
_BODY = details(_REFUSAL).model_dump_json().encode()
_HEADERS = Headers({"Content-Type": MEDIA_TYPE, "Content-Length": str(len(_BODY)), **_REFUSAL.headers}).raw


class Admission:
    """Lets as many predictions through as have a place, which they keep to their end, and refuses the rest at once."""

    def __init__(self, app: ASGIApp, state: State) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        serving = self._state.serving
        if serving is None or prediction_path(scope) is None:
            await self._app(scope, receive, send)
            return
        with ExitStack() as stack:
            try:
                # Before it is received: what is still being received is in memory too.
                stack.enter_context(serving.inference.place(declared_bytes(Headers(scope=scope))))
            except Overloaded:
                scope["log_fields"]["cause"] = _REFUSAL.detail
                await send({"type": "http.response.start", "status": _REFUSAL.status, "headers": list(_HEADERS)})
                await send({"type": "http.response.body", "body": _BODY})
                return
            stack.enter_context(self._state.metrics.pictures.track_inprogress())
            await self._app(scope, receive, send)


def prediction_path(scope: Scope) -> str | None:
    """The path, without the root path, of a request that brings pictures; None of any other."""
    path = str(scope["path"]).removeprefix(scope.get("root_path", ""))
    return path if scope["method"] == "POST" and path in PREDICTIONS else None
