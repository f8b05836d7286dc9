"""The parts around the contestants: a model with its picture, S3 and MLflow that hold it, the images."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import docker
import psutil

from tests.bench.serving.contestants import CLIENT_CORE, Contestant, Settings, build_rival
from tests.integration.api_parts import Lock, Relay, build_api_image, host_address
from tests.integration.docker_engine import BASE, network, printed
from tests.integration.mlflow_fixture import running_mlflow
from tests.integration.s3_servers import seaweedfs
from tests.integration.trainer_container import IMAGE as TRAINER
from tests.photograph import photograph

HERE = Path(__file__).parent
# Where our images keep their packages.
IMAGES_PATH = "/opt/airlock"
WIDTH, HEIGHT = 640, 480
# What their documentation offers; the fastest on this machine is what is measured.
SETTINGS = {
    "LitServe": {
        f"{batches}{queue}": Settings({"BATCH": batch, "FAST_QUEUE": fast})
        for batches, batch in (("one at a time", "1"), ("batches of 4", "4"), ("batches of 8", "8"))
        for queue, fast in (("", "0"), (" and fast queue", "1"))
    },
    "BentoML": {
        "one at a time": Settings({"SERVICE": "Single"}),
        "batches of 4": Settings({"SERVICE": "Batched", "BATCH": "4"}, "pictures"),
        "batches of 8": Settings({"SERVICE": "Batched", "BATCH": "8"}, "pictures"),
    },
}


@dataclass(frozen=True)
class Arena:
    """What every row is given."""

    client: docker.APIClient
    network: str
    api_image: str
    lock: Lock
    shared: dict[str, str]
    """The environment of our container, but for the run."""
    rivals: dict[str, Contestant]
    directory: Path

    def models(self, size: int) -> Path:
        """A directory with `best.pt`, `best.onnx` and `picture.jpg`, made at the first call."""
        directory = self.directory / str(size)
        if not directory.exists():
            directory.mkdir()
            binds = {str(HERE / "models.py"): "/run/models.py:ro", str(directory): "/models"}
            printed(self.client, TRAINER, ["/run/models.py", str(size)], binds=binds, path=IMAGES_PATH)
            (directory / "picture.jpg").write_bytes(jpeg())
        return directory

    def ours(self, size: int) -> Contestant:
        """Our API for the model of this size, as it is deployed: run in MLflow, weights in S3."""
        run_id = self.lock.run((self.models(size) / "best.onnx").read_bytes())
        release = {"MLFLOW_RUN_ID": run_id, "RELEASE_ID": "bench", "ROOT_PATH": "/paint"}
        return Contestant("Airlock", self.api_image, ["serve"], self.shared | release, volumes=("/weights",))

    def rival(self, name: str, size: int) -> Contestant:
        """A rival for the model of this size."""
        found = self.rivals[name]
        return replace(found, environment={**found.environment, "IMAGE_SIZE": str(size)})

    def inside(self, size: int, what: str, seconds: float, cores: str) -> str:
        """The last line of `inside.py` in the API image."""
        script = ["/run/inside.py", what, str(seconds)]
        binds = {str(HERE / "inside.py"): "/run/inside.py:ro", str(self.models(size)): "/models:ro"}
        said = printed(self.client, self.api_image, script, binds=binds, path=IMAGES_PATH, cpuset_cpus=cores)
        return said.splitlines()[-1]


@contextmanager
def arena(directory: Path) -> Iterator[Arena]:
    """Builds the images; S3 and MLflow run until the end."""
    client = docker.APIClient(version="auto", timeout=600)
    api_image = build_api_image(client)
    with (
        network(client) as bridge,
        seaweedfs(directory / "s3") as s3,
        running_mlflow(directory / "mlflow") as mlflow,
    ):
        address = host_address(client, bridge)
        relays = [Relay(s3.endpoint_url, address), Relay(mlflow.url, address)]
        s3.client().create_bucket(Bucket="dvc-bench")
        shared = {
            "PROJECT": "paint",
            "S3_ENDPOINT_URL": relays[0].url,
            "AWS_ACCESS_KEY_ID": s3.access_key_id,
            "AWS_SECRET_ACCESS_KEY": s3.secret_access_key,
            "DVC_BUCKET": "dvc-bench",
            "MLFLOW_TRACKING_URI": relays[1].url,
            "IMAGE_ID": api_image,
        }
        try:
            lock = Lock(s3.client(), "dvc-bench", mlflow.client())
            yield Arena(client, bridge, api_image, lock, shared, _rivals(client), directory)
        finally:
            for relay in relays:
                relay.close()


def _rivals(client: docker.APIClient) -> dict[str, Contestant]:
    images = {name: build_rival(client, name, BASE, "/opt/rival") for name in ("litserve", "bentoml", "mlflow")}
    images["ultralytics"] = build_rival(client, "ultralytics", TRAINER, "/opt/trainer")
    uvicorn = "uvicorn ultralytics_server:app --host 0.0.0.0 --port 8000 --no-access-log"
    mlflow = "mlflow models serve -m model -h 0.0.0.0 -p 8000 --env-manager local --workers 1"
    bentoml = ["sh", "-c", 'exec bentoml serve "bentoml_server:$SERVICE" --port 8000']
    everyone = [
        Contestant("FastAPI + Ultralytics", images["ultralytics"], uvicorn.split(), field="file"),
        Contestant("LitServe", images["litserve"], ["python", "litserve_server.py"], field="request"),
        Contestant("BentoML", images["bentoml"], bentoml),
        Contestant("mlflow models serve", images["mlflow"], mlflow.split(), field="rows", path="/invocations"),
    ]
    return {each.name: each for each in everyone}


def jpeg() -> bytes:
    """The JPEG that every contestant is sent."""
    content = io.BytesIO()
    photograph(1, WIDTH, HEIGHT).save(content, "JPEG", quality=85)
    return content.getvalue()


@contextmanager
def apart() -> Iterator[None]:
    """This process, the client, on the core that no server has, and with it the engine, which reads their log lines."""
    threads = [0]
    for process in psutil.process_iter(["name"]):
        if process.info["name"] in ("dockerd", "containerd"):
            threads += [thread.id for thread in process.threads()]
    before = {thread: os.sched_getaffinity(thread) for thread in threads}
    try:
        for thread in threads:
            os.sched_setaffinity(thread, {int(CLIENT_CORE)})
        yield
    finally:
        for thread, cores in before.items():
            with suppress(ProcessLookupError):  # it has ended
                os.sched_setaffinity(thread, cores)
