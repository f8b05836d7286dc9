"""Errors as RFC 9457 problem details."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

MEDIA_TYPE = "application/problem+json"


class ProblemDetails(BaseModel):
    """What went wrong, and what to do about it."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str


class Problem(Exception):
    """Answers the request with this status; the detail names the cause and the next step."""

    def __init__(self, status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})


def described(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """These statuses for a route's OpenAPI description."""
    schema = {"$ref": "#/components/schemas/ProblemDetails"}
    return {
        int(status): {
            "model": ProblemDetails,
            "description": status.phrase,
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        for status in statuses
    }


def answer_with_problems(app: FastAPI) -> None:
    """Makes every error of the app a problem-details answer."""

    @app.exception_handler(Problem)
    async def _of_ours(request: Request, problem: Problem) -> JSONResponse:
        return response(request, problem)

    @app.exception_handler(HTTPException)
    async def _of_the_framework(request: Request, cause: HTTPException) -> JSONResponse:
        status = HTTPStatus(cause.status_code)
        detail = f"{request.method} {request.url.path}: {cause.detail}. The docs page lists what there is."
        return response(request, Problem(status, detail, cause.headers))

    @app.exception_handler(Exception)
    async def _of_a_bug(request: Request, cause: Exception) -> JSONResponse:
        status = HTTPStatus.INTERNAL_SERVER_ERROR
        detail = "The server failed on this request. Its log has the cause under the X-Request-ID of this answer."
        return response(request, Problem(status, detail))


def response(request: Request, problem: Problem) -> JSONResponse:
    """The problem as a response, noted for the request's log line."""
    request.scope["log_fields"]["cause"] = problem.detail
    return JSONResponse(details(problem).model_dump(), problem.status, problem.headers, media_type=MEDIA_TYPE)


def details(problem: Problem) -> ProblemDetails:
    """The body of the answer."""
    return ProblemDetails(title=problem.status.phrase, status=problem.status, detail=problem.detail)
