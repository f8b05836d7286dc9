"""All that a request goes through, from the outside in."""

from starlette.types import ASGIApp

from api.admission import Admission
from api.app import State, create_app
from api.requests import RequestLog


def application(state: State) -> ASGIApp:
    """The log line and the count, the place among those in work, then the routes."""
    return RequestLog(Admission(create_app(state), state), state.metrics)
