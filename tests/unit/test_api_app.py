from __future__ import annotations

import asyncio
import logging
import re
import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from api import bodies
from api import inference as inference_module
from api.app import Serving, State
from api.application import application
from api.identity import Identity
from api.inference import Inference
from api.memory import Memory
from api.model import Model
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from tests.classifiers import COLOURS, colour_classifier, encoded, picture

IDENTITY = Identity(
    run_id="a" * 32,
    project="paint",
    dvc_hash="b" * 32,
    dvc_hash_onnx="c" * 32,
    snapshot_id="20261123T171409123Z-c71581aa",
    snapshot_md5="d" * 32 + ".dir",
    git_commit="abc123",
    image_id="sha256:trainer",
    accuracy=0.97,
)
PROBLEM = "application/problem+json"


@pytest.fixture
def state() -> State:
    """A process that has only begun to start."""
    return State("paint", "20261123T171409123Z-v3", "sha256:api")


@pytest.fixture
def warm(state: State, tmp_path: Path) -> State:
    """A process that serves the classifier of colours."""
    return warmed(state, tmp_path)


def warmed(state: State, folder: Path) -> State:
    """The same process, once it serves the classifier of colours."""
    path = folder / "best.onnx"
    path.write_bytes(colour_classifier().SerializeToString())
    model = Model(path, threads=1)
    inference = Inference(model, 2, Memory(1 << 30), 64 << 20, state.metrics.batch_size.observe)
    state.serving = Serving(IDENTITY, inference, list(model.classes), model.image_size, "2026-11-23T17:20:00.000Z")
    return state


def ask(state: State, method: str, path: str, **given: Any) -> httpx.Response:
    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(application(state))
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
            return await client.request(method, path, **given)

    return asyncio.run(asked())


def post(state: State, content: bytes, media_type: str = "image/png", **headers: str) -> httpx.Response:
    return ask(state, "POST", "/predict", content=content, headers={"Content-Type": media_type, **headers})


def assert_problem(answer: httpx.Response, status: int, *words: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == PROBLEM
    problem = answer.json()
    assert problem["status"] == status
    assert problem["title"]
    for word in words:
        assert word in problem["detail"]


def test_nothing_is_answered_but_503_until_the_model_is_warm(state: State) -> None:
    for method, path in (("GET", "/health"), ("GET", "/metadata"), ("POST", "/predict")):
        answer = ask(state, method, path)
        assert_problem(answer, 503, "is starting")
        assert answer.headers["Retry-After"] == "1"


def test_health_names_release_and_run_once_warm(warm: State) -> None:
    assert ask(warm, "GET", "/health").json() == {
        "status": "ok",
        "project": "paint",
        "release_id": "20261123T171409123Z-v3",
        "run_id": "a" * 32,
    }


def test_a_stopping_server_is_not_healthy_but_answers_what_still_arrives(warm: State) -> None:
    warm.stopping = True
    assert_problem(ask(warm, "GET", "/health"), 503, "is stopping")
    assert post(warm, picture("red")).status_code == 200


def test_metadata_leads_from_the_release_to_the_bytes_that_made_it(warm: State) -> None:
    assert ask(warm, "GET", "/metadata").json() == {
        **IDENTITY.model_dump(exclude={"experiment_id"}),
        "run_url": None,
        "release_id": "20261123T171409123Z-v3",
        "api_image_id": "sha256:api",
        "classes": list(COLOURS),
        "image_size": 32,
        "served_since": "2026-11-23T17:20:00.000Z",
    }


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_a_picture_in_the_raw_body_gets_its_class_and_all_probabilities(warm: State, colour: str, kind: str) -> None:
    answer = post(warm, picture(colour, kind), f"image/{kind.lower()}").json()
    assert answer["label"] == colour
    assert answer["confidence"] == answer["probabilities"][colour] == max(answer["probabilities"].values())
    assert set(answer["probabilities"]) == set(COLOURS)
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert answer["release_id"] == "20261123T171409123Z-v3"
    assert answer["run_id"] == "a" * 32


@pytest.mark.parametrize("media_type", ["application/octet-stream", "IMAGE/PNG; charset=binary", ""])
def test_the_declared_type_need_not_say_which_picture_it_is(warm: State, media_type: str) -> None:
    assert post(warm, picture("green"), media_type).json()["label"] == "green"


def test_a_picture_in_a_form_gets_its_class(warm: State) -> None:
    large = encoded(Image.fromarray(np.tile(np.array(COLOURS["blue"], np.uint8), (900, 900, 1))), "BMP")
    for content in (picture("blue"), large):
        answer = ask(warm, "POST", "/predict", files={"file": ("x.png", content, "image/png")}, data={"note": "hello"})
        assert answer.json()["label"] == "blue"


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1"])
def test_pictures_of_every_mode_are_answered(warm: State, mode: str) -> None:
    image = Image.new("RGB", (40, 30), "red").convert(mode)
    assert post(warm, encoded(image, "JPEG" if mode == "CMYK" else "PNG")).status_code == 200


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"\x00\xff" * 500, "not a picture"),
        (picture("red", "JPEG")[:-200], "cannot be decoded"),
        (encoded(Image.new("1", (7000, 6000)), "PNG"), "40,000,000"),
    ],
)
def test_a_body_that_is_no_usable_picture_is_a_422_that_says_why(warm: State, content: bytes, words: str) -> None:
    assert_problem(post(warm, content), 422, words)


def test_a_form_without_a_file_is_refused(warm: State) -> None:
    assert_problem(ask(warm, "POST", "/predict", files={"image": ("x.png", picture("red"))}), 422, "field `file`")
    assert_problem(ask(warm, "POST", "/predict", files={"file": (None, "text")}), 422, "field `file`")


@pytest.mark.parametrize(
    ("media_type", "content"),
    [
        ("multipart/form-data", b"no boundary"),
        ("multipart/form-data; boundary=x", b"--x\r\nno header\r\n"),
        (
            "multipart/form-data; boundary=x",
            b"--x\r\nContent-Disposition: form-data; name=file; filename=a\r\n\r\nhalf",
        ),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; boundary=" + "x" * 5000, b"--x--"),
    ],
)
def test_a_malformed_form_is_the_callers_error(warm: State, media_type: str, content: bytes) -> None:
    answer = post(warm, content, media_type)
    assert answer.status_code in (400, 422)
    assert answer.headers["Content-Type"] == PROBLEM


def test_a_form_with_many_files_is_refused(warm: State) -> None:
    files = [("file", (f"{n}.png", picture("red"))) for n in range(3)]
    assert_problem(ask(warm, "POST", "/predict", files=files), 400, "one file")


def test_another_media_type_is_refused_with_those_that_are_taken(warm: State) -> None:
    assert_problem(post(warm, b"{}", "application/json"), 415, "application/json", "image/*", "multipart/form-data")


def test_a_body_above_the_limit_is_refused_whether_it_says_its_size_or_not(warm: State) -> None:
    too_much = bytes(bodies.MAX_BODY_BYTES + 1)
    assert_problem(post(warm, too_much), 413, "10,485,760")

    async def stream() -> Any:
        for _ in range(11):
            yield bytes(1024 * 1024)

    assert_problem(ask(warm, "POST", "/predict", content=stream(), headers={"Content-Type": "image/png"}), 413)


def test_a_body_that_does_not_come_is_given_up_in_time(warm: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.05)

    async def stalling() -> Any:
        yield picture("red")[:100]
        await asyncio.Event().wait()

    answer = ask(warm, "POST", "/predict", content=stalling(), headers={"Content-Type": "image/png"})
    assert_problem(answer, 408, "did not arrive", "Send it again")
    assert answer.headers["Connection"] == "close"
    assert post(warm, picture("red")).status_code == 200, "its place is free again"


def test_above_what_may_wait_the_answer_is_503_at_once(warm: State, monkeypatch: pytest.MonkeyPatch) -> None:
    free = threading.Event()
    real = inference_module.predictions

    def held(*given: Any) -> Any:
        free.wait(30)
        return real(*given)

    monkeypatch.setattr(inference_module, "predictions", held)
    monkeypatch.setattr(inference_module, "MAX_IN_FLIGHT", 3)

    async def asked() -> list[int]:
        transport = httpx.ASGITransport(application(warm))
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
            headers = {"Content-Type": "image/png"}
            requests = [
                asyncio.create_task(client.post("/predict", content=picture("red"), headers=headers)) for _ in range(5)
            ]
            refused, _ = await asyncio.wait(requests, return_when=asyncio.FIRST_COMPLETED)
            assert {task.result().status_code for task in refused} == {503}
            free.set()
            return sorted([(await request).status_code for request in requests])

    assert asyncio.run(asked()) == [200, 200, 200, 503, 503]


@pytest.mark.parametrize("declared", [True, False])
def test_bodies_count_before_they_are_read_and_only_as_many_are_taken_as_memory_has_room_for(
    warm: State, declared: bool
) -> None:
    large = picture("red", "BMP") + bytes(8 << 20)
    begun, free = asyncio.Event(), asyncio.Event()
    read = []

    async def body(name: str) -> Any:
        read.append(name)
        yield large[:1000]
        if len(read) == 6:
            begun.set()
        await free.wait()
        yield large[1000:]

    async def asked() -> None:
        transport = httpx.ASGITransport(application(warm))
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
            headers = {"Content-Type": "image/bmp"} | ({"Content-Length": str(len(large))} if declared else {})

            def send(name: str) -> Any:
                return asyncio.create_task(client.post("/predict", content=body(name), headers=headers))

            # 64 MiB hold six of ten, or seven of the eight that these are.
            taken = [send(f"taken {number}") for number in range(7 if declared else 6)]
            await begun.wait()
            refused = await send("refused")
            assert_problem(refused, 503, "Ask again")
            assert refused.headers["Retry-After"] == "1"
            assert "refused" not in read
            small = {"Content-Type": "image/png", "Content-Length": "100"}
            assert (await client.post("/predict", content=bytes(100), headers=small)).status_code == 422
            free.set()
            assert [(await answer).json()["label"] for answer in taken] == ["red"] * len(taken)
            assert (await send("later")).status_code == 200

    asyncio.run(asked())


def test_unknown_paths_and_methods_are_problems_too(warm: State) -> None:
    assert_problem(ask(warm, "GET", "/nowhere"), 404, "/nowhere")
    answer = ask(warm, "GET", "/predict")
    assert_problem(answer, 405)
    assert answer.headers["Allow"] == "POST"


def test_a_bug_is_a_500_without_its_inside_and_the_log_has_the_traceback(
    warm: State, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*given: Any) -> None:
        raise RuntimeError("the inside")

    monkeypatch.setattr(inference_module, "predictions", broken)
    answer = post(warm, picture("red"), **{"X-Request-ID": "find-me"})
    assert_problem(answer, 500, "X-Request-ID")
    assert "the inside" not in answer.text
    (record,) = [record for record in caplog.records if record.message == "request"]
    assert record.exc_info is not None
    assert record.__dict__["fields"]["request_id"] == "find-me"


def test_each_request_leaves_one_line_under_its_id(warm: State, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    given = post(warm, picture("red"), **{"X-Request-ID": "trace-1"})
    made = post(warm, b"nothing")
    ask(warm, "GET", "/health")
    lines = [record.__dict__["fields"] for record in caplog.records if record.message == "request"]
    assert [(line["request_id"], line["status"], line["path"]) for line in lines] == [
        ("trace-1", 200, "/predict"),
        (made.headers["X-Request-ID"], 422, "/predict"),
    ]
    assert given.headers["X-Request-ID"] == "trace-1"
    assert lines[0]["label"] == "red"
    assert "not a picture" in lines[1]["cause"]


@pytest.mark.parametrize("hostile", ["a b", "x" * 200, '"}{"', "ä"])
def test_a_request_id_that_could_forge_a_log_line_is_replaced(warm: State, hostile: str) -> None:
    answer = ask(warm, "GET", "/health", headers={"X-Request-ID": hostile.encode()})
    assert answer.headers["X-Request-ID"] != hostile
    assert len(answer.headers["X-Request-ID"]) == 32


def through_the_front_door(state: State, path: str) -> httpx.Response:
    """As uvicorn hands it over with `root_path`: the prefix in front of what HAProxy left."""

    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(application(state), root_path="/predict")
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
            return await client.get(f"/predict{path}")

    return asyncio.run(asked())


def test_a_project_may_be_named_like_a_path_and_its_docs_lead_to_its_own_schema(warm: State) -> None:
    assert through_the_front_door(warm, "/health").status_code == 200
    assert "/predict/openapi.json" in through_the_front_door(warm, "/docs").text
    schema = through_the_front_door(warm, "/openapi.json").json()
    assert schema["servers"] == [{"url": "/predict"}]


def test_the_docs_page_needs_nothing_from_the_internet(warm: State) -> None:
    page = through_the_front_door(warm, "/docs").text
    named = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(named) == 3
    for address in named:
        assert address.startswith("/predict/docs/")
        assert through_the_front_door(warm, address.removeprefix("/predict")).status_code == 200
    assert through_the_front_door(warm, "/docs/files/none.js").headers["Content-Type"] == PROBLEM


def test_the_schema_describes_bodies_answers_and_problems(warm: State) -> None:
    operation = ask(warm, "GET", "/openapi.json").json()["paths"]["/predict"]["post"]
    assert set(operation["requestBody"]["content"]) == {"image/*", "application/octet-stream", "multipart/form-data"}
    assert set(operation["responses"]) >= {"200", "400", "408", "413", "415", "422", "503"}
    assert PROBLEM in operation["responses"]["422"]["content"]


def test_metrics_count_answers_by_route_and_predictions_by_class(warm: State) -> None:
    post(warm, picture("red"))
    post(warm, picture("red"))
    post(warm, b"no picture")
    ask(warm, "GET", "/../../etc/passwd")
    answer = ask(warm, "GET", "/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain")
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert samples["airlock_requests_total", "/predict", "200"] == 2
    assert samples["airlock_requests_total", "/predict", "422"] == 1
    assert samples["airlock_requests_total", "404", "none"] == 1
    assert samples["airlock_predictions_total", "red"] == 2
    assert samples["airlock_predict_seconds_count",] == 2
    assert samples["airlock_predict_seconds_bucket", "+Inf"] == 2
    assert samples["airlock_confidence_count",] == 2
    assert samples["airlock_pictures_in_work",] == 0


def post_batch(state: State, contents: list[bytes]) -> httpx.Response:
    return ask(state, "POST", "/predict/batch", files=[("files", ("picture", content)) for content in contents])


def test_a_batch_is_answered_in_its_order_as_each_picture_alone(warm: State) -> None:
    colours = ["red", "blue", "red", "green"]
    answer = post_batch(warm, [picture(colour) for colour in colours]).json()
    assert [prediction["label"] for prediction in answer["predictions"]] == colours
    alone = post(warm, picture("blue")).json()
    assert answer["predictions"][1]["probabilities"] == alone["probabilities"]
    assert (answer["release_id"], answer["run_id"]) == (alone["release_id"], alone["run_id"])


def test_a_batch_with_a_bad_picture_says_which(warm: State) -> None:
    assert_problem(post_batch(warm, [picture("red"), b"none"]), 422, "picture 2 of 2 cannot be used")


def test_a_batch_has_an_end(warm: State) -> None:
    assert_problem(post_batch(warm, [picture("red")] * 33), 400, "at most 32 files")
    assert_problem(post_batch(warm, [b"\0" * (4 << 20)] * 3), 413, "larger than")


def test_a_batch_is_a_form(warm: State) -> None:
    answer = ask(warm, "POST", "/predict/batch", content=picture("red"), headers={"Content-Type": "image/png"})
    assert_problem(answer, 415, "`files`")
    assert_problem(ask(warm, "POST", "/predict/batch", files={"file": b"x"}), 422, "`files`")
