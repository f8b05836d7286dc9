"""What an API container must answer before it is trusted: health, who it is, and the golden predictions."""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import requests
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from include.releases import Record

TIMEOUT_SECONDS = 10
IDENTITY = ("project", "release_id", "run_id", "dvc_hash", "dvc_hash_onnx", "snapshot_id", "snapshot_md5")
BODY_SHOWN = 300


class CheckFailed(Exception):
    """A check's answer was wrong, late or missing; the message has the URL, the status and the time."""


@dataclass(frozen=True)
class Answer:
    """One answer. `status` is None where there was none, `body` then says why."""

    url: str
    method: str
    status: int | None
    body: bytes
    seconds: float

    def __str__(self) -> str:
        status = "no answer" if self.status is None else f"status {self.status}"
        body = self.body[:BODY_SHOWN].decode(errors="replace").strip()
        return f"{self.method} {self.url}: {status} after {self.seconds:.2f} s" + (f" ({body})" if body else "")


class Http(Protocol):
    """Asks; never raises for what the other side does."""

    def get(self, url: str) -> Answer:
        """GET."""
        ...

    def post(self, url: str, body: bytes) -> Answer:
        """POST of raw bytes."""
        ...


class RealHttp:
    """HTTP by `requests`."""

    def get(self, url: str) -> Answer:
        """GET."""
        return self._ask("GET", url, None)

    def post(self, url: str, body: bytes) -> Answer:
        """POST of raw bytes."""
        return self._ask("POST", url, body)

    def _ask(self, method: str, url: str, body: bytes | None) -> Answer:
        began = time.monotonic()
        headers = {"Content-Type": "application/octet-stream"} if body is not None else {}
        try:
            answer = requests.request(
                method, url, data=body, headers=headers, timeout=TIMEOUT_SECONDS, allow_redirects=False
            )
        except requests.RequestException as error:
            return Answer(url, method, None, str(error).encode(), time.monotonic() - began)
        return Answer(url, method, answer.status_code, answer.content, time.monotonic() - began)


class GoldenPicture(BaseModel):
    """One picture and what the model answered to it when it was trained."""

    model_config = ConfigDict(frozen=True)

    name: str
    content: str
    probabilities: dict[str, float] = Field(min_length=2)


class GoldenSet(BaseModel):
    """`golden.json`; see docs/contracts.md."""

    model_config = ConfigDict(frozen=True)

    images: tuple[GoldenPicture, ...] = Field(min_length=1)


def read_golden(body: bytes) -> GoldenSet:
    """Parse golden.json. Raises CheckFailed where it is none."""
    try:
        return GoldenSet.model_validate_json(body)
    except ValidationError as error:
        raise CheckFailed(
            f"the golden predictions cannot be read ({error.error_count()} mistakes); train again"
        ) from None


def check_health(http: Http, base: str, record: Record) -> None:
    """`/health` is 200 and names this release. Raises CheckFailed."""
    answer = http.get(f"{base}/health")
    _compare(answer, {"status": "ok", "release_id": record.release_id, "run_id": record.run_id})


def check_identity(http: Http, base: str, record: Record) -> None:
    """`/metadata` names this release's run, hashes, snapshot and image. Raises CheckFailed."""
    answer = http.get(f"{base}/metadata")
    _compare(answer, {**{key: getattr(record, key) for key in IDENTITY}, "api_image_id": record.api_image_id})


def replay_golden(http: Http, base: str, golden: GoldenSet, tolerance: float) -> None:
    """Every golden picture is answered as when it was recorded, within `tolerance`. Raises CheckFailed."""
    for picture in golden.images:
        try:
            content = base64.b64decode(picture.content, validate=True)
        except binascii.Error:
            raise CheckFailed(f"the golden picture {picture.name} is not base64; train again") from None
        answer = http.post(f"{base}/predict", content)
        found = _json(answer).get("probabilities")
        if not isinstance(found, dict) or found.keys() != picture.probabilities.keys():
            raise CheckFailed(f"{answer}: the golden picture {picture.name} should be answered with other classes")
        name, difference = _furthest(found, picture.probabilities)
        if not difference <= tolerance:  # NaN is no agreement either
            raise CheckFailed(
                f"{answer}: the golden picture {picture.name} has the probability {found[name]} of {name!r}, recorded "
                f"was {picture.probabilities[name]}; more than {tolerance} apart"
            )


def _furthest(found: Mapping[str, Any], expected: Mapping[str, float]) -> tuple[str, float]:
    differences = {
        name: abs(found[name] - value) if isinstance(found[name], int | float) else float("inf")
        for name, value in expected.items()
    }
    return max(differences.items(), key=lambda item: float("inf") if item[1] != item[1] else item[1])


def _compare(answer: Answer, expected: Mapping[str, str]) -> None:
    found = _json(answer)
    wrong = [
        f"{key} is {found.get(key)!r}, expected {value!r}" for key, value in expected.items() if found.get(key) != value
    ]
    if wrong:
        raise CheckFailed(f"{answer}: {'; '.join(wrong)}")


def _json(answer: Answer) -> dict[str, Any]:
    if answer.status != 200:
        raise CheckFailed(str(answer))
    try:
        found = json.loads(answer.body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise CheckFailed(f"{answer}: not a JSON object")
    return found
