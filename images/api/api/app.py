"""The HTTP surface: health, metadata, predict."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal

from fastapi import FastAPI, Request
from pydantic import BaseModel

from api.bodies import OPENAPI_BODY, expected_bytes, picture_in
from api.docs_page import add_docs
from api.identity import Identity
from api.inference import Inference, Overloaded, Prediction
from api.preprocess import UnreadablePicture
from api.problems import Problem, answer_with_problems, described

RETRY_SECONDS = "1"
PREDICT_PROBLEMS = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.SERVICE_UNAVAILABLE,
)


@dataclass(frozen=True)
class Serving:
    """A verified, warm model and whose it is."""

    identity: Identity
    inference: Inference
    classes: list[str]
    image_size: int
    served_since: str


@dataclass
class State:
    """What this process serves: nothing until it is warm."""

    project: str
    release_id: str
    api_image_id: str
    serving: Serving | None = None
    stopping: bool = False

    def ready(self) -> Serving:
        """What serves; a 503 Problem before it is warm."""
        if self.serving is None:
            raise self._not_ready("is starting: its weights are being fetched and checked")
        return self.serving

    def healthy(self) -> Serving:
        """As `ready`, but not once it stops: what arrives until the last connection closes is still answered."""
        if self.stopping:
            raise self._not_ready("is stopping")
        return self.ready()

    def _not_ready(self, doing: str) -> Problem:
        detail = f"Release {self.release_id} of {self.project} {doing}. Ask again in a moment."
        return Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, {"Retry-After": RETRY_SECONDS})


class Health(BaseModel):
    """Who answers, and that it is warm."""

    status: Literal["ok"] = "ok"
    project: str
    release_id: str
    run_id: str


class Metadata(BaseModel):
    """What exactly serves, down to the bytes that made it."""

    project: str
    release_id: str
    run_id: str
    dvc_hash: str
    dvc_hash_onnx: str
    snapshot_id: str
    snapshot_md5: str
    git_commit: str
    image_id: str
    api_image_id: str
    accuracy: float
    classes: list[str]
    image_size: int
    served_since: str


class PredictionAnswer(BaseModel):
    """The likeliest class, each class's probability, and who says so."""

    label: str
    confidence: float
    probabilities: dict[str, float]
    release_id: str
    run_id: str


def create_app(state: State) -> FastAPI:
    """The application; it serves as soon as `state` does."""
    app = FastAPI(
        title=f"{state.project}: image classification",
        version=state.release_id,
        description="Send a picture, get its class. `/metadata` tells which model answers.",
        docs_url=None,
        redoc_url=None,
    )
    answer_with_problems(app)
    add_docs(app)

    @app.get("/health", responses=described(HTTPStatus.SERVICE_UNAVAILABLE))
    async def health() -> Health:
        """Answers 200 only when predictions are served."""
        run_id = state.healthy().identity.run_id
        return Health(project=state.project, release_id=state.release_id, run_id=run_id)

    @app.get("/metadata", responses=described(HTTPStatus.SERVICE_UNAVAILABLE))
    async def metadata() -> Metadata:
        """The chain from this release to run, weights, dataset, code and images."""
        serving = state.ready()
        return Metadata(
            **serving.identity.model_dump(),
            release_id=state.release_id,
            api_image_id=state.api_image_id,
            classes=serving.classes,
            image_size=serving.image_size,
            served_since=serving.served_since,
        )

    @app.post("/predict", openapi_extra=OPENAPI_BODY, responses=described(*PREDICT_PROBLEMS))
    async def predict(request: Request) -> PredictionAnswer:
        """Classifies one picture: JPEG, PNG, WebP, BMP or TIFF."""
        serving = state.ready()
        # The place comes first: what is still being received is in memory too.
        with _place(serving.inference, expected_bytes(request)):
            content = await picture_in(request)
            prediction = await _predicted(serving.inference, content)
        request.scope["log_fields"].update(label=prediction.label, picture_bytes=len(content))
        return PredictionAnswer(
            label=prediction.label,
            confidence=prediction.confidence,
            probabilities=prediction.probabilities,
            release_id=state.release_id,
            run_id=serving.identity.run_id,
        )

    return app


@contextmanager
def _place(inference: Inference, size: int) -> Iterator[None]:
    try:
        with inference.place(size):
            yield
    except Overloaded:
        detail = "As many pictures as this server takes at once are being worked on. Ask again in a moment."
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, {"Retry-After": RETRY_SECONDS}) from None


async def _predicted(inference: Inference, content: bytes) -> Prediction:
    try:
        return await inference.predict(content)
    except UnreadablePicture as cause:
        detail = f"The body cannot be used: {cause}. Send one complete picture."
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail) from None
