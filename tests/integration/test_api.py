"""The API image against real S3 and MLflow: serving, restarting, refusing, evaluating."""

from __future__ import annotations

import contextlib
import gzip
import queue
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import docker
import pytest
import requests
from PIL import Image

from tests.classifiers import COLOURS, SIZE, colour_classifier, encoded, picture
from tests.hostile_requests import hostile_requests
from tests.integration.api_parts import (
    ApiContainer,
    Lock,
    Relay,
    api_container,
    build_api_image,
    host_address,
    volume,
)
from tests.integration.docker_engine import network
from tests.integration.mlflow_fixture import MlflowServer, running_mlflow
from tests.integration.s3_servers import S3Server

CLASSES = tuple(COLOURS)
GOOD = colour_classifier().SerializeToString()
# Takes blue for green and green for blue.
CONFUSED = colour_classifier(CLASSES, ("green", "blue", "red")).SerializeToString()
RELEASE = "20261123T171409123Z-v3"

Start = Callable[..., ApiContainer]


@pytest.fixture(scope="module")
def image(docker_client: docker.APIClient) -> str:
    """Id of the API image."""
    return build_api_image(docker_client)


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A real tracking server."""
    with running_mlflow(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.fixture(scope="module")
def bridge(docker_client: docker.APIClient) -> Iterator[str]:
    """The network of the containers."""
    with network(docker_client) as name:
        yield name


@pytest.fixture
def s3_relay(docker_client: docker.APIClient, s3_server: S3Server, bridge: str) -> Iterator[Relay]:
    """How containers reach S3."""
    relay = Relay(s3_server.endpoint_url, host_address(docker_client, bridge))
    yield relay
    relay.close()


@pytest.fixture
def mlflow_relay(docker_client: docker.APIClient, mlflow: MlflowServer, bridge: str) -> Iterator[Relay]:
    """How containers reach MLflow."""
    relay = Relay(mlflow.url, host_address(docker_client, bridge))
    yield relay
    relay.close()


@pytest.fixture(scope="module")
def bucket(s3_server: S3Server) -> str:
    """A DVC bucket."""
    name = f"dvc-{uuid.uuid4().hex[:8]}"
    s3_server.client().create_bucket(Bucket=name)
    return name


@pytest.fixture
def lock(s3_server: S3Server, bucket: str, mlflow: MlflowServer) -> Lock:
    """The DVC bucket and MLflow."""
    return Lock(s3_server.client(), bucket, mlflow.client())


@pytest.fixture
def start(
    docker_client: docker.APIClient,
    image: str,
    bridge: str,
    s3_server: S3Server,
    s3_relay: Relay,
    mlflow_relay: Relay,
    lock: Lock,
) -> Iterator[Start]:
    """Starts a command of the image, with a volume of the test's own for what it keeps."""
    shared = {
        "PROJECT": "paint",
        "S3_ENDPOINT_URL": s3_relay.url,
        "AWS_ACCESS_KEY_ID": s3_server.access_key_id,
        "AWS_SECRET_ACCESS_KEY": s3_server.secret_access_key,
        "DVC_BUCKET": lock.bucket,
        "MLFLOW_TRACKING_URI": mlflow_relay.url,
        "IMAGE_ID": image,
    }
    with ExitStack() as stack:
        kept = stack.enter_context(volume(docker_client))

        def begin(command: str, **environment: str) -> ApiContainer:
            mounts = {kept: "/weights" if command == "serve" else "/cache"}
            container = stack.enter_context(
                api_container(docker_client, image, command, shared | environment, mounts, bridge)
            )
            container.start()
            return container

        yield begin


@pytest.fixture
def serve(start: Start) -> Start:
    """Starts `serve` for a run."""
    return lambda run_id: start("serve", MLFLOW_RUN_ID=run_id, RELEASE_ID=RELEASE, ROOT_PATH="/paint")


@pytest.fixture
def evaluate(start: Start) -> Start:
    """Starts `evaluate`."""

    def begin(challenger: str, champion: str = "") -> ApiContainer:
        result = "/results/result.json"
        return start("evaluate", CHALLENGER_RUN_ID=challenger, CHAMPION_RUN_ID=champion, RESULT_PATH=result)

    return begin


def predict(container: ApiContainer, colour: str) -> Any:
    headers = {"Content-Type": "image/jpeg"}
    answer = requests.post(f"{container.url}/predict", picture(colour, "JPEG"), headers=headers, timeout=10)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_released_run_is_served_from_its_locked_bytes(serve: Start, lock: Lock, image: str) -> None:
    run_id = lock.run(GOOD)
    container = serve(run_id)
    health = container.wait_until_healthy().json()
    assert health == {"status": "ok", "project": "paint", "release_id": RELEASE, "run_id": run_id}
    assert [predict(container, colour)["label"] for colour in CLASSES] == list(CLASSES)
    metadata = requests.get(f"{container.url}/metadata", timeout=10).json()
    assert metadata["dvc_hash_onnx"] == lock.push(GOOD)
    assert (metadata["accuracy"], metadata["classes"], metadata["image_size"]) == (0.97, list(CLASSES), SIZE)
    assert (metadata["api_image_id"], metadata["image_id"]) == (image, "sha256:trainer")
    schema = requests.get(f"{container.url}/openapi.json", timeout=10).json()
    assert schema["servers"] == [{"url": "/paint"}]


def test_a_restart_needs_neither_mlflow_nor_s3(serve: Start, lock: Lock, s3_relay: Relay, mlflow_relay: Relay) -> None:
    container = serve(lock.run(GOOD))
    container.wait_until_healthy()
    s3_relay.cut()
    mlflow_relay.cut()
    assert predict(container, "red")["label"] == "red"
    assert container.stop() == 0
    container.start()
    container.wait_until_healthy()
    assert predict(container, "red")["label"] == "red"


def test_sigterm_lets_a_request_finish_and_ends_with_0(serve: Start, lock: Lock) -> None:
    container = serve(lock.run(GOOD))
    container.wait_until_healthy()
    body = picture("red", "BMP")
    begun, rest = threading.Event(), threading.Event()

    def slow_body() -> Iterator[bytes]:
        yield body[:100]
        begun.set()
        rest.wait(20)
        yield body[100:]

    answers: list[requests.Response] = []

    def ask() -> None:
        url, headers = f"{container.url}/predict", {"Content-Type": "image/bmp"}
        answers.append(requests.post(url, data=slow_body(), headers=headers, timeout=30))

    asking = threading.Thread(target=ask)
    asking.start()
    assert begun.wait(20)
    container.client.kill(container.id, "SIGTERM")
    container.wait_for("Shutting down")
    rest.set()
    asking.join()
    assert container.wait() == 0
    assert answers[0].json()["label"] == "red"


def turned() -> Image.Exif:
    """An EXIF block that says: turn it by a quarter."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


# What decoding makes the most of: of 40 million pixels, and of as many as a container of 512 MiB has room for.
HUGE = {
    "a JPEG for print": encoded(Image.new("CMYK", (8000, 5000)), "JPEG"),
    "a progressive JPEG": encoded(Image.new("CMYK", (8000, 5000)), "JPEG", progressive=True),
    "a PNG with alpha": encoded(Image.new("RGBA", (8000, 5000)), "PNG"),
    "a photo to be turned": encoded(Image.new("RGB", (8000, 5000)), "JPEG", exif=turned()),
    "a WebP": encoded(Image.new("RGBA", (8000, 5000)), "WEBP", lossless=True, method=0),
    "one row": encoded(Image.new("RGBA", (40_000_000, 1)), "PNG"),
}
LARGE = {
    "a JPEG for print": encoded(Image.new("CMYK", (4000, 4000)), "JPEG"),
    "a progressive JPEG": encoded(Image.new("CMYK", (4000, 4000)), "JPEG", progressive=True, exif=turned()),
    "a PNG with alpha": encoded(Image.new("RGBA", (4000, 4000)), "PNG", exif=turned()),
    "a photo to be turned": encoded(Image.new("RGB", (4000, 4000)), "JPEG", exif=turned()),
    "a WebP": encoded(Image.new("RGBA", (3000, 3000)), "WEBP", lossless=True, method=0),
}
MIB = 1024 * 1024


def test_the_largest_pictures_all_at_once_do_not_exhaust_the_containers_memory(serve: Start, lock: Lock) -> None:
    container = serve(lock.run(GOOD))
    container.wait_until_healthy()
    before = container.client.inspect_container(container.id)["State"]
    bodies = [
        *((content, {422, 503}) for content in HUGE.values()),
        *((content, {200, 503}) for content in LARGE.values()),
        *((picture(colour, "JPEG"), {200, 503}) for colour in CLASSES),
        (bytes(10 * MIB), {422, 503}),
        (bytes(11 * MIB), {413}),
    ]

    def ask(case: tuple[bytes, set[int]]) -> tuple[int, set[int]]:
        content, allowed = case
        headers = {"Content-Type": "application/octet-stream"}
        return requests.post(f"{container.url}/predict", content, headers=headers, timeout=120).status_code, allowed

    with ThreadPoolExecutor(2 * len(bodies)) as pool:
        answers = list(pool.map(ask, bodies * 6))
    assert [answer for answer in answers if answer[0] not in answer[1]] == []
    assert {status for status, _ in answers} >= {200, 413, 422}
    # Each of the large ones was worked on, and not only refused for want of a place.
    assert [ask((content, {200})) for content in LARGE.values()] == [(200, {200})] * len(LARGE)
    after = container.client.inspect_container(container.id)
    assert (after["State"]["StartedAt"], after["State"]["OOMKilled"]) == (before["StartedAt"], False)
    assert after["State"]["Running"]
    assert predict(container, "red")["label"] == "red"


def test_the_image_has_no_torch(serve: Start, lock: Lock) -> None:
    container = serve(lock.run(GOOD))
    container.wait_until_healthy()
    container.run_inside("python -c \"import importlib.util as u; assert u.find_spec('torch') is None\"")


def test_altered_weights_in_the_store_are_refused_with_65(serve: Start, lock: Lock) -> None:
    run_id = lock.run(GOOD)
    key = lock.key(lock.push(GOOD))
    lock.s3.put_object(Bucket=lock.bucket, Key=key, Body=CONFUSED)
    try:
        container = serve(run_id)
        assert container.wait() == 65
    finally:
        lock.push(GOOD)
    (failure,) = container.events("failed")
    assert failure["kind"] == "data"
    assert key in failure["message"]
    assert "altered" in failure["message"]


def test_weights_altered_on_the_volume_are_fetched_again_and_refused_without_a_store(
    serve: Start, lock: Lock, s3_relay: Relay
) -> None:
    container = serve(lock.run(GOOD))
    container.wait_until_healthy()
    md5 = lock.push(GOOD)
    damage = f"chmod u+w /weights/files/md5/{md5[:2]}/* && echo altered >> /weights/files/md5/{md5[:2]}/{md5[2:]}"
    container.run_inside(damage)
    container.stop()
    container.start()
    container.wait_until_healthy()
    assert predict(container, "green")["label"] == "green"
    assert len(container.events("stored_file_altered")) == 1

    container.run_inside(damage)
    container.stop()
    s3_relay.cut()
    container.start()
    assert container.wait() == 69
    assert "could not be read" in container.events("failed")[-1]["message"]


def test_a_run_without_its_tags_is_refused_with_78(serve: Start, lock: Lock) -> None:
    container = serve(lock.run(GOOD, dvc_hash=None, snapshot_md5=None))
    assert container.wait() == 78
    assert "dvc_hash, snapshot_md5" in container.events("failed")[0]["message"]


def test_an_unknown_run_is_refused_with_78(serve: Start) -> None:
    container = serve("f" * 32)
    assert container.wait() == 78
    assert "f" * 32 in container.events("failed")[0]["message"]


def test_a_missing_object_is_refused_with_65(serve: Start, lock: Lock) -> None:
    container = serve(lock.run(GOOD, dvc_hash_onnx="e" * 32))
    assert container.wait() == 65
    assert "has no object" in container.events("failed")[0]["message"]


def test_a_missing_bucket_is_not_taken_for_missing_weights(start: Start, lock: Lock) -> None:
    container = start("serve", MLFLOW_RUN_ID=lock.run(GOOD), RELEASE_ID=RELEASE, DVC_BUCKET="no-such-bucket")
    assert container.wait() == 78
    assert "There is no bucket no-such-bucket" in container.events("failed")[0]["message"]


def test_bytes_that_are_no_model_are_refused_with_65(serve: Start, lock: Lock) -> None:
    container = serve(lock.run(GOOD[:-100]))
    assert container.wait() == 65


def test_without_mlflow_a_first_start_ends_with_69(serve: Start, lock: Lock, mlflow_relay: Relay) -> None:
    run_id = lock.run(GOOD)
    mlflow_relay.cut()
    container = serve(run_id)
    assert container.wait() == 69
    assert "MLflow" in container.events("failed")[0]["message"]


def test_without_s3_a_first_start_ends_with_69(serve: Start, lock: Lock, s3_relay: Relay) -> None:
    run_id = lock.run(GOOD)
    s3_relay.cut()
    container = serve(run_id)
    assert container.wait() == 69
    assert "S3" in container.events("failed")[0]["message"]


def test_wrong_keys_are_refused_with_78_and_stand_in_no_log(start: Start, lock: Lock) -> None:
    secret = "not-the-secret-of-anybody"
    run_id = lock.run(GOOD)
    container = start("serve", MLFLOW_RUN_ID=run_id, RELEASE_ID=RELEASE, AWS_SECRET_ACCESS_KEY=secret)
    assert container.wait() == 78
    assert "refused" in container.events("failed")[0]["message"]
    assert secret not in container.log()


def split(lock: Lock, train: list[bytes], val: dict[str, list[bytes]]) -> dict[str, Any]:
    """A split.json whose validation pictures lie in the remote `data`."""
    return {
        "train": [lock.push(content, "data") for content in train],
        "val": [
            {"md5": lock.push(content, "data"), "relpath": f"{label}/{number}.png", "label": label}
            for label, contents in val.items()
            for number, content in enumerate(contents)
        ],
        "left_out": [],
    }


def test_challenger_and_champion_are_scored_on_pictures_that_neither_was_trained_on(
    evaluate: Start, lock: Lock
) -> None:
    val = {colour: [picture(colour, seed=seed) for seed in range(40)] for colour in CLASSES}
    val["red"] = val["red"][:30]
    seen = val["blue"][:4]
    champion = lock.run(CONFUSED, split(lock, seen, {"red": [picture("red", seed=99)]}))
    challenger = lock.run(GOOD, split(lock, [picture("red", seed=98)], val))
    container = evaluate(challenger, champion)
    assert container.wait() == 0, container.log()
    result = container.result()
    assert (result["n"], result["excluded"]) == (106, 4)
    assert (result["challenger"]["run_id"], result["challenger"]["correct"]) == (challenger, 106)
    assert result["challenger"]["accuracy"] == 1
    assert result["champion"]["per_class"] == {
        "blue": {"n": 36, "correct": 0},
        "green": {"n": 40, "correct": 0},
        "red": {"n": 30, "correct": 30},
    }
    assert result["majority"] == {"class": "green", "accuracy": pytest.approx(40 / 106)}
    assert result["shared"] == {"n": 106, "challenger_correct": 106, "champion_correct": 30}
    assert (result["won"], result["lost"], len(result["flips"])) == (76, 0, 76)
    assert {(flip["label"], flip["champion"], flip["challenger"]) for flip in result["flips"]} == {
        ("blue", "green", "blue"),
        ("green", "blue", "green"),
    }


def test_a_first_model_is_evaluated_alone(evaluate: Start, lock: Lock) -> None:
    val = {colour: [picture(colour, kind) for kind in ("JPEG", "PNG", "BMP")] for colour in CLASSES}
    container = evaluate(lock.run(GOOD, split(lock, [], val)))
    assert container.wait() == 0, container.log()
    result = container.result()
    assert (result["champion"], result["shared"], result["flips"]) == (None, None, [])
    assert result["challenger"]["accuracy"] == 1


def test_a_second_evaluation_takes_its_pictures_from_the_cache(evaluate: Start, lock: Lock) -> None:
    val = {colour: [picture(colour)] for colour in CLASSES}
    run_id = lock.run(GOOD, split(lock, [], val))
    assert evaluate(run_id).wait() == 0
    for colour in CLASSES:
        lock.s3.delete_object(Bucket=lock.bucket, Key=lock.key(lock.push(picture(colour), "data"), "data"))
    assert evaluate(run_id).wait() == 0


@pytest.mark.parametrize(
    ("content", "words"), [(b"no picture", "red/0.png"), (None, "has no object"), (b"", "red/0.png")]
)
def test_a_picture_that_cannot_be_scored_fails_the_task_as_data_and_is_named(
    evaluate: Start, lock: Lock, content: bytes | None, words: str
) -> None:
    document = split(lock, [], {"red": [content or b""]})
    if content is None:
        document["val"][0]["md5"] = "e" * 32
    container = evaluate(lock.run(GOOD, document))
    assert container.wait() == 65
    error = container.result()["error"]
    assert error["kind"] == "data"
    assert words in error["message"]


def test_a_champion_that_was_trained_on_every_picture_cannot_be_compared(evaluate: Start, lock: Lock) -> None:
    pictures = [picture(colour) for colour in CLASSES]
    champion = lock.run(GOOD, split(lock, pictures, {"red": [picture("red", seed=5)]}))
    container = evaluate(
        lock.run(GOOD, split(lock, [], dict(zip(CLASSES, [[p] for p in pictures], strict=True)))), champion
    )
    assert container.wait() == 65
    assert "training pictures of the champion" in container.result()["error"]["message"]


def test_without_s3_an_evaluation_is_unavailable(evaluate: Start, lock: Lock, s3_relay: Relay) -> None:
    run_id = lock.run(GOOD, split(lock, [], {"red": [picture("red")]}))
    s3_relay.cut()
    container = evaluate(run_id)
    assert container.wait() == 69
    assert container.result()["error"]["kind"] == "unavailable"


def test_an_evaluation_that_is_stopped_says_so_and_ends_with_143(
    evaluate: Start, lock: Lock, mlflow_relay: Relay
) -> None:
    run_id = lock.run(GOOD, split(lock, [], {"red": [picture("red")]}))
    mlflow_relay.hold()
    container = evaluate(run_id)
    mlflow_relay.wait_until_asked()
    assert container.stop() == 143
    assert container.result()["error"]["kind"] == "interrupted"


def exchanged(address: tuple[str, int], request: bytes) -> bytes:
    """What comes back to these bytes; nothing where the connection is closed, or waited on in vain."""
    with contextlib.suppress(OSError), socket.create_connection(address, timeout=10) as connection:
        answer = bytearray()
        with contextlib.suppress(OSError):  # it may answer, and close, before all was sent
            connection.sendall(request)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            while chunk := connection.recv(65_536):
                answer += chunk
        return bytes(answer)
    return b""


class Collector:
    """Takes what is exported by OTLP over HTTP."""

    def __init__(self, address: str) -> None:
        self.traces: queue.Queue[bytes] = queue.Queue()
        traces = self.traces

        class Taken(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/v1/traces":
                    traces.put(gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *told: object) -> None:
                pass

        self.server = ThreadingHTTPServer((address, 0), Taken)
        self.url = f"http://{address}:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def collector(docker_client: docker.APIClient, bridge: str) -> Iterator[Collector]:
    """A collector that containers reach."""
    collector = Collector(host_address(docker_client, bridge))
    yield collector
    collector.server.shutdown()


def test_a_prediction_is_traced_where_there_is_a_collector(start: Start, lock: Lock, collector: Collector) -> None:
    container = start(
        "serve",
        MLFLOW_RUN_ID=lock.run(GOOD),
        RELEASE_ID=RELEASE,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_RESOURCE_ATTRIBUTES=f"airlock.release_id={RELEASE}",
        OTEL_BSP_SCHEDULE_DELAY="100",
    )
    container.wait_until_healthy()
    predict(container, "red")
    while b"/predict" not in (exported := collector.traces.get(timeout=30)):
        pass
    assert RELEASE.encode() in exported


def test_hundreds_of_hostile_requests_are_answered_or_cut_off_and_leave_no_trace(serve: Start, lock: Lock) -> None:
    container = serve(lock.run(GOOD))
    address = (container.url.removeprefix("http://").partition(":")[0], 8000)
    everything = list(hostile_requests())
    assert len({name for name, _ in everything}) > 200
    memory = [0]
    # The first rounds warm what is warmed once, such as Pillow's 32 MiB; what leaks grows in every round.
    for turn in range(8):
        for name, request in everything:
            answer = exchanged(address, request)
            status = answer[9:12].decode(errors="replace")
            assert answer == b"" or (answer.startswith(b"HTTP/1.1 ") and status.isdigit()), (name, answer[:200])
            assert not status.startswith("5") or status in ("503", "505"), (name, answer[-500:])
        assert requests.get(f"{container.url}/health", timeout=10).status_code == 200
        memory.append(resident_bytes(container))
        if turn > 1 and memory[-1] < memory[-2] + 8 * 2**20:
            break
    else:
        pytest.fail(f"it grows with every round: {[size >> 20 for size in memory]} MiB")
    assert predict(container, "red")["label"] == "red"
    assert "traceback" not in container.log()


def resident_bytes(container: ApiContainer) -> int:
    """What the container's processes hold in memory, without the file cache."""
    stats = container.client.stats(container.id, stream=False)["memory_stats"]
    return int(stats["stats"].get("anon", stats["stats"].get("rss", 0)))
