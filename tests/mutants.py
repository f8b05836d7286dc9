"""Bad models put forward for release: what a trainer, a store or a container may get wrong, more than fifty ways.

Each is given to Airlock's own checks in the order of a release, and to a naive script that loads a model and asks once.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import json
import pickle
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import onnx
import onnxruntime
from api.app import Serving, State
from api.application import application
from api.errors import Failure
from api.identity import Identity
from api.inference import Inference, Prediction, predictions
from api.memory import Memory
from api.model import Model
from onnx import TensorProto, helper, numpy_helper
from starlette.types import ASGIApp, Receive, Scope, Send

from include.api_checks import (
    Answer,
    CheckFailed,
    check_health,
    check_identity,
    read_golden,
    replay_golden,
)
from include.bake_limits import BakeLimits
from include.baking import Figures, judge
from include.releases import Record
from tests.classifiers import COLOURS, SIZE, colour_classifier, model, picture

TOLERANCE = 1e-4
LIMITS = BakeLimits(min_requests=20)
OLD_P99_SECONDS = 0.01
REQUESTS = 120  # those that crash do so after 100
CLASSES = tuple(COLOURS)
# Not so sure of everything that a change of its weights would not show.
WEIGHTS = numpy_helper.to_array(colour_classifier().graph.initializer[0]) / 8
GOOD = model(WEIGHTS, CLASSES)
PICTURES = {f"{colour}.png": picture(colour, seed=1) for colour in COLOURS}
MEMORY = Memory(1 << 30)


class Crashed(Exception):
    """The container's process ended."""


@dataclass(frozen=True)
class Mutant:
    """A model put forward: `content` lies in the store; `promised` is what the trainer locked (None: the same)."""

    name: str
    content: bytes
    promised: bytes | None = None
    identity: dict[str, str] = field(default_factory=dict)
    around: Callable[[ASGIApp], ASGIApp] = lambda app: app
    # How long the n-th request takes: told, not measured, so that a busy machine decides nothing.
    seconds: Callable[[int], float] = lambda number: OLD_P99_SECONDS


def md5(content: bytes) -> str:
    """As DVC names it."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def good() -> Mutant:
    """The model that nothing is wrong with."""
    return Mutant("good", GOOD.SerializeToString())


def mutants() -> Iterator[Mutant]:
    """All of them."""
    yield from altered_in_the_store()
    yield from wrong_weights()
    yield from wrong_form()
    yield from wrong_identity()
    yield from bad_under_traffic()


def altered_in_the_store() -> Iterator[Mutant]:
    """The trainer locked the good model; these bytes lie there now."""
    whole = GOOD.SerializeToString()
    for share in (0.01, 0.3, 0.6, 0.9, 0.99):
        yield Mutant(f"truncated to {share:.0%}", whole[: int(len(whole) * share)], whole)
    for share in (0.1, 0.4, 0.7, 0.95):
        at = int(len(whole) * share)
        yield Mutant(f"a bit flipped at {share:.0%}", whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :], whole)
    others = {
        "empty": b"",
        "zeros": bytes(len(whole)),
        "an error page": b"<html><body>502 Bad Gateway</body></html>",
        "a pickle": pickle.dumps({"model": [1, 2, 3]}),
        "something behind it": whole + b"\x00" * 10,
        "another run's weights": relabelled(colour_classifier(knows=CLASSES[::-1])),
    }
    for name, content in others.items():
        yield Mutant(f"the store has {name}", content, whole)


def wrong_weights() -> Iterator[Mutant]:
    """Locked as they are, but not what was validated: the export went wrong, or the preprocessing is another."""
    noise = np.random.default_rng(0).normal(size=WEIGHTS.shape).astype(np.float32)
    changed = {
        "NaN weights": WEIGHTS * np.float32("nan"),
        "one NaN": np.where(np.arange(9).reshape(3, 3) == 4, np.float32("nan"), WEIGHTS),
        "infinite weights": WEIGHTS * np.float32("inf"),
        "all zero": WEIGHTS * 0,
        "negated": -WEIGHTS,
        "half as sure": WEIGHTS * 0.5,
        "twice as sure": WEIGHTS * 2,
        "2 % surer": WEIGHTS * 1.02,
        "noise": WEIGHTS + noise,
        "a little noise": WEIGHTS + 0.02 * noise,
        "trained on BGR": WEIGHTS[::-1],
        "trained on 0…255": WEIGHTS / 255,
        "trained on -1…1": WEIGHTS * 2 - 1,
        "trained on BRG": WEIGHTS[[2, 0, 1]],
    }
    for name, weights in changed.items():
        yield Mutant(name, relabelled(model(np.ascontiguousarray(weights, np.float32), CLASSES)))
    for order in itertools.permutations(range(3)):
        if order != (0, 1, 2):
            yield Mutant(f"outputs in the order {order}", relabelled(model(WEIGHTS[:, order].copy(), CLASSES)))
            yield Mutant(f"names in the order {order}", relabelled(model(WEIGHTS, [CLASSES[i] for i in order])))


def wrong_form() -> Iterator[Mutant]:
    """No such classifier as the contract describes."""
    yield Mutant("another input's name", relabelled(model(WEIGHTS, CLASSES, name="pixels")))
    yield Mutant("a class too many in the names", relabelled(GOOD, names=str(dict(enumerate((*CLASSES, "grey"))))))
    yield Mutant("a class too few in the names", relabelled(GOOD, names=str(dict(enumerate(CLASSES[:2])))))
    yield Mutant("no names", relabelled(GOOD, names=None))
    yield Mutant("names that are code", relabelled(GOOD, names="__import__('os').system('true')"))
    yield Mutant("no image size", relabelled(GOOD, imgsz=None))
    yield Mutant("another image size in the metadata", relabelled(GOOD, imgsz="[64, 64]"))
    yield Mutant("an image size beyond all bounds", relabelled(model(WEIGHTS, CLASSES, size=8192)))
    without_softmax = onnx.ModelProto.FromString(GOOD.SerializeToString())
    without_softmax.graph.node[-1].op_type = "Identity"
    del without_softmax.graph.node[-1].attribute[:]
    yield Mutant("logits for probabilities", relabelled(without_softmax))
    one_at_a_time = onnx.ModelProto.FromString(GOOD.SerializeToString())
    one_at_a_time.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    yield Mutant("a batch of one only", relabelled(one_at_a_time))
    two_inputs = onnx.ModelProto.FromString(GOOD.SerializeToString())
    two_inputs.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE]))
    yield Mutant("two inputs", relabelled(two_inputs))
    outside = onnx.ModelProto.FromString(GOOD.SerializeToString())
    outside.graph.initializer[0].ClearField("raw_data")
    outside.graph.initializer[0].data_location = TensorProto.EXTERNAL
    outside.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")
    yield Mutant("weights in another file", relabelled(outside))


def wrong_identity() -> Iterator[Mutant]:
    """The right weights, but the container is not who the release says."""
    for key, value in {
        "run_id": "b" * 32,
        "project": "other",
        "dvc_hash": "e" * 32,
        "dvc_hash_onnx": "e" * 32,
        "snapshot_id": "20261101T000000000Z-00000000",
        "snapshot_md5": f"{'e' * 32}.dir",
        "api_image_id": "sha256:other",
        "release_id": "20261101T000000000Z-v1",
    }.items():
        yield Mutant(f"another {key}", GOOD.SerializeToString(), identity={key: value})


def bad_under_traffic() -> Iterator[Mutant]:
    """Good until it has traffic: only the bake sees it."""
    content = GOOD.SerializeToString()
    yield Mutant("slow", content, seconds=lambda number: 0.08)
    yield Mutant("every tenth slow", content, seconds=lambda number: 0.08 if number % 10 == 0 else 0.01)
    yield Mutant("every second fails", content, around=lambda app: _Every(app, 2, _fail))
    yield Mutant("every twentieth fails", content, around=lambda app: _Every(app, 20, _fail))
    yield Mutant("crashes after 100 requests", content, around=lambda app: _Every(app, 100, _crash))


async def _fail(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 500, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


async def _crash(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    raise Crashed


@dataclass
class _Every:
    """Every n-th prediction goes wrong, once as many were asked as a proof takes."""

    app: ASGIApp
    every: int
    wrong: Callable[[ASGIApp, Scope, Receive, Send], Awaitable[None]]
    asked: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked += scope["path"] == "/predict"
        proved = self.asked > len(PICTURES)
        if scope["path"] == "/predict" and proved and self.asked % self.every == 0:
            await self.wrong(self.app, scope, receive, send)
            return
        await self.app(scope, receive, send)


def relabelled(made: onnx.ModelProto, **changes: str | None) -> bytes:
    """The model's bytes, with other metadata (None: without)."""
    copy = onnx.ModelProto.FromString(made.SerializeToString())
    kept: dict[str, str | None] = {each.key: each.value for each in copy.metadata_props} | changes
    del copy.metadata_props[:]
    helper.set_model_props(copy, {key: value for key, value in kept.items() if value is not None})
    return bytes(copy.SerializeToString())


class _Asgi:
    """HTTP to an app in this process."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def get(self, url: str) -> Answer:
        return self._ask("GET", url, None)

    def post(self, url: str, body: bytes) -> Answer:
        return self._ask("POST", url, body)

    def _ask(self, method: str, url: str, body: bytes | None) -> Answer:
        async def asked() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self._app)) as client:
                return await client.request(method, url, content=body)

        answer = asyncio.run(asked())
        return Answer(url, method, answer.status_code, answer.content, 0.0)


RECORD = Record.model_validate(
    {
        "release_id": "20261123T171409123Z-v3",
        "project": "paint",
        "run_id": "a" * 32,
        "model_version": "3",
        "dvc_hash": "c" * 32,
        "dvc_hash_onnx": "",
        "dvc_hash_golden": "d" * 32,
        "snapshot_id": "20261123T160000000Z-c71581aa",
        "snapshot_md5": f"{'d' * 32}.dir",
        "api_image_id": "sha256:api",
        "created_at": "2026-11-23T17:14:09Z",
        "airflow_run_id": "run",
        "previous_release_id": None,
        "reason": "better",
    }
)


def golden() -> bytes:
    """What the good model answered when it was trained."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "best.onnx"
        path.write_bytes(GOOD.SerializeToString())
        trained = Model(path, threads=1)
        answers = predictions(trained, list(PICTURES.values()), MEMORY)
        images = [
            {"name": name, "content": base64.b64encode(content).decode(), "probabilities": answer.probabilities}
            for (name, content), answer in zip(PICTURES.items(), answers, strict=True)
            if isinstance(answer, Prediction)
        ]
    return json.dumps({"images": images}).encode()


GOLDEN = read_golden(golden())


def refusal(mutant: Mutant) -> str | None:
    """Why Airlock does not let it serve; None: it serves."""
    promised = md5(mutant.promised if mutant.promised is not None else mutant.content)
    if md5(mutant.content) != promised:
        return "md5"
    record = RECORD.model_copy(update={"dvc_hash_onnx": promised})
    with tempfile.TemporaryDirectory() as folder:
        try:
            app = mutant.around(_api(mutant, promised, Path(folder)))
        except Failure as error:
            return f"not started: {error}"
        http = _Asgi(app)
        try:
            check_health(http, "http://api", record)
            check_identity(http, "http://api", record)
            replay_golden(http, "http://api", GOLDEN, TOLERANCE)
        except CheckFailed as error:
            return f"not proved: {error}"
        return _watched(http, mutant)


def _api(mutant: Mutant, onnx_md5: str, folder: Path) -> ASGIApp:
    path = folder / "best.onnx"
    path.write_bytes(mutant.content)
    loaded = Model(path, threads=1)
    told = RECORD.model_dump(mode="json") | {"dvc_hash_onnx": onnx_md5} | mutant.identity
    identity = Identity.model_validate({**told, "git_commit": "abc", "image_id": "sha256:trainer", "accuracy": 0.97})
    state = State(told["project"], told["release_id"], told["api_image_id"])
    state.serving = Serving(
        identity,
        Inference(loaded, 1, MEMORY, 64 << 20, state.metrics.batch_size.observe),
        list(loaded.classes),
        loaded.image_size,
        "2026-11-23T17:20:00Z",
    )
    return application(state)


def _watched(http: _Asgi, mutant: Mutant) -> str | None:
    """The bake: the old release's figures are those of the good model."""
    seconds, failed, crashes = [], 0, 0
    for number, content in enumerate(itertools.islice(itertools.cycle(PICTURES.values()), REQUESTS), 1):
        try:
            answer = http.post("http://api/predict", content)
        except Crashed:
            crashes += 1
            break
        failed += answer.status != 200
        seconds.append(mutant.seconds(number))
    old = Figures(10_000, 0, OLD_P99_SECONDS)
    new = Figures(len(seconds), failed, float(np.quantile(seconds, 0.99)))
    return judge(new, old, LIMITS, crashes=crashes, ended=True)


def naive_script_serves(mutant: Mutant) -> bool:
    """A script that fetches a model, loads it, asks it once, and then serves."""
    try:
        session = onnxruntime.InferenceSession(mutant.content, providers=["CPUExecutionProvider"])
        (one,) = session.get_inputs()
        side = one.shape[-1]
        session.run(None, {one.name: np.zeros((1, 3, side, side), np.float32)})
    except Exception:
        return False
    return True
