"""The HTTP surface: health, metadata, predict."""

import time
from collections.abc import Awaitable
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from typing import Literal

from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel

from api.bodies import (
    OPENAPI_BATCH_BODY,
    OPENAPI_BODY,
    check_batch_headers,
    check_headers,
    picture_in,
    pictures_in,
)
from api.docs_page import add_docs
from api.identity import Identity
from api.inference import Inference, Prediction
from api.metrics import MEDIA_TYPE, Metrics
from api.page import add_page
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
    run_url: str | None = None


@dataclass
class State:
    """What this process serves: nothing until it is warm."""

    project: str
    release_id: str
    api_image_id: str
    serving: Serving | None = None
    stopping: bool = False
    metrics: Metrics = field(default_factory=Metrics)

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
    run_url: str | None


class PredictionOfOne(BaseModel):
    """The likeliest class, and each class's probability."""

    label: str
    confidence: float
    probabilities: dict[str, float]


class PredictionAnswer(PredictionOfOne):
    """The likeliest class, each class's probability, and who says so."""

    release_id: str
    run_id: str


class BatchAnswer(BaseModel):
    """One prediction for each picture, in the order of the request, and who says so."""

    predictions: list[PredictionOfOne]
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
    add_page(app)

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
            **serving.identity.model_dump(exclude={"experiment_id"}),
            run_url=serving.run_url,
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
        check_headers(request)
        content = await picture_in(request)
        prediction = await _measured(state.metrics, _predicted(serving.inference, content))
        request.scope["log_fields"].update(label=prediction.label, picture_bytes=len(content))
        return PredictionAnswer(
            label=prediction.label,
            confidence=prediction.confidence,
            probabilities=prediction.probabilities,
            release_id=state.release_id,
            run_id=serving.identity.run_id,
        )

    @app.post("/predict/batch", openapi_extra=OPENAPI_BATCH_BODY, responses=described(*PREDICT_PROBLEMS))
    async def predict_batch(request: Request) -> BatchAnswer:
        """Classifies up to 32 pictures, one after the other: a batch takes no other request's turn."""
        serving = state.ready()
        check_batch_headers(request)
        predictions = []
        contents = await pictures_in(request)
        for number, content in enumerate(contents, 1):
            predicting = _predicted(serving.inference, content, f"picture {number} of {len(contents)}")
            predictions.append(await _measured(state.metrics, predicting))
        request.scope["log_fields"].update(pictures=len(contents), picture_bytes=sum(map(len, contents)))
        return BatchAnswer(
            predictions=[PredictionOfOne(**asdict(prediction)) for prediction in predictions],
            release_id=state.release_id,
            run_id=serving.identity.run_id,
        )

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Counts and latencies since the start, for Prometheus."""
        return Response(state.metrics.text(), media_type=MEDIA_TYPE)

    return app


async def _measured(metrics: Metrics, predicting: Awaitable[Prediction]) -> Prediction:
    began = time.perf_counter()
    prediction = await predicting
    metrics.predict_seconds.observe(time.perf_counter() - began)
    metrics.predictions.labels(prediction.label).inc()
    metrics.confidence.observe(prediction.confidence)
    return prediction


async def _predicted(inference: Inference, content: bytes, what: str = "body") -> Prediction:
    try:
        return await inference.predict(content)
    except UnreadablePicture as cause:
        detail = f"The {what} cannot be used: {cause}. Send one complete picture."
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail) from None
