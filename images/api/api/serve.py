"""The command `serve`: one process that answers 503 until its weights are verified and warm."""

import contextlib
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import uvicorn

from api import bodies, limits, log, memory
from api.app import Serving, State
from api.application import application
from api.identity import identify, run_url
from api.inference import Inference
from api.metrics import Metrics
from api.model import Model
from api.settings import ServeSettings
from api.store import Store

WEIGHTS = Path("/weights")
PORT = 8000
# Spare memory for each thread beside the picture and a run of the model: the allocator's own pools.
THREAD_BYTES = 48 * 1024 * 1024
DRAIN_SECONDS = 25
# Longer than HAProxy keeps an idle connection to a server, so that it is never this side that closes one in use.
KEEP_ALIVE_SECONDS = 75


def serve(settings: ServeSettings) -> None:
    """Serves until SIGTERM, then finishes what it has begun; raises the Failure that kept it from serving."""
    state = State(settings.project, settings.release_id, settings.api_image_id)
    server = _Server(
        uvicorn.Config(
            application(state),
            host="0.0.0.0",  # noqa: S104 - a container's own network
            port=PORT,
            root_path=settings.root_path,
            lifespan="on",  # FastAPI sets OpenTelemetry up at its start
            log_config=None,
            access_log=False,
            proxy_headers=False,  # nothing here asks who the client is
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        ),
        state,
    )
    threading.Thread(target=server.load, args=(settings,), daemon=True, name="load").start()
    server.run()
    if server.failure is not None:
        raise server.failure


class _Server(uvicorn.Server):
    """uvicorn's server, which also loads the model, and for which SIGTERM is a normal end."""

    def __init__(self, config: uvicorn.Config, state: State) -> None:
        super().__init__(config)
        self._state = state
        self.failure: Exception | None = None

    def load(self, settings: ServeSettings) -> None:
        """Makes the state ready, or ends the server with a failure. Runs beside the event loop."""
        try:
            self._state.serving = _serving(settings, self._state.metrics)
            log.event("serving", project=settings.project, release_id=settings.release_id, run_id=settings.run_id)
        except Exception as cause:  # whatever it is, a server that cannot load must end
            self.failure = cause
            self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """From now on not ready; uvicorn then drains."""
        self._state.stopping = True
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, which at the end raises the signal again: having drained, we exit with 0."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()


def _serving(settings: ServeSettings, metrics: Metrics) -> Serving:
    """Identity and weights, both verified, the model warm."""
    identity = identify(settings.run_id, settings.project, settings.mlflow_url, WEIGHTS, settings.recorded)
    cores = limits.cores()
    model = Model(Store(settings).fetch(identity.dvc_hash_onnx, "models", WEIGHTS), cores, settings.device)
    spare = memory.spare_bytes()
    threads = max(1, min(cores, spare // (THREAD_BYTES + model.run_bytes)))
    waiting = max(bodies.MAX_BODY_BYTES, spare // 4)
    return Serving(
        identity=identity,
        run_url=run_url(settings.mlflow_public_url, identity),
        inference=Inference(model, threads, memory.for_pictures(), waiting, metrics.batch_size.observe),
        classes=list(model.classes),
        image_size=model.image_size,
        served_since=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    )
