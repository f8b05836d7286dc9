"""A real MLflow server that tests can stop and start again."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from mlflow.tracking import MlflowClient

from tests.integration.ports import free_ports
from tests.tools.environments import executable

START_SECONDS = 120


class MlflowServer:
    """MLflow on a free port, its database and artifacts below a directory that outlive a stop."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        (self._port,) = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}"

    def client(self) -> MlflowClient:
        """A client of it."""
        return MlflowClient(self.url)

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._directory.mkdir(parents=True, exist_ok=True)
        command = [
            *(str(executable("mlflow", "mlflow")), "server", "--host=127.0.0.1", f"--port={self._port}", "--workers=1"),
            f"--backend-store-uri=sqlite:///{self._directory}/mlflow.db",
            *("--serve-artifacts", f"--artifacts-destination={self._directory}/artifacts"),
        ]
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self._directory / "server.log").open("ab") as output:
            self._process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"MLflow did not start: {(self._directory / 'server.log').read_text()[-2000:]}")
            time.sleep(0.2)

    def stop(self) -> None:
        """Kill it with all its workers."""
        if self._process:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.url}/health", timeout=2).ok
        except requests.RequestException:
            return False


@contextmanager
def running_mlflow(directory: Path) -> Iterator[MlflowServer]:
    """A server for the time of a test."""
    server = MlflowServer(directory)
    server.start()
    try:
        yield server
    finally:
        server.stop()
