"""Airlock's API and its rivals, each in a container on the same core, asked from the other."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import docker
import requests

from tests.bench.serving.load import Question
from tests.integration.docker_engine import address

RIVALS = Path(__file__).with_name("rivals")
SERVER_CORES, CLIENT_CORE = "0", "1"
START_SECONDS = 180
BOUNDARY = "a-boundary-that-no-picture-holds"


@dataclass(frozen=True)
class Settings:
    """One of the ways in which a rival can be run."""

    environment: Mapping[str, str]
    field: str | None = None
    """Where it then wants another form's field."""


@dataclass(frozen=True)
class Contestant:
    """How one is started and asked."""

    name: str
    image: str
    command: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    field: str | None = None
    """The form's field with the picture, `rows` for MLflow's JSON; None where the body is the picture."""
    path: str = "/predict"
    volumes: tuple[str, ...] = ()
    """Of these, a new one is made for each container."""

    def with_settings(self, words: str, settings: Settings) -> Contestant:
        """The same with other settings, which become part of the name."""
        environment = {**self.environment, **settings.environment}
        return replace(self, name=f"{self.name}, {words}", environment=environment, field=settings.field or self.field)


@dataclass(frozen=True)
class Running:
    """A container of a contestant."""

    client: docker.APIClient
    contestant: Contestant
    id: str
    picture: bytes

    @property
    def question(self) -> Question:
        """The picture, as this one wants to be asked."""
        url = f"http://{address(self.client, self.id)}:8000{self.contestant.path}"
        return Question(url, *_encoded(self.picture, self.contestant.field))

    def cpu_seconds(self) -> float:
        """Of all its processes so far."""
        stats = self.client.stats(self.id, stream=False, one_shot=True)
        return float(stats["cpu_stats"]["cpu_usage"]["total_usage"]) / 1e9

    def memory_bytes(self) -> int:
        """Its processes' resident memory, what they share counted once (PSS)."""
        processes = self.client.top(self.id, "-o pid")["Processes"]
        return sum(_pss(int(pid)) for (pid,) in processes)

    def wait_until_it_answers(self) -> str:
        """The label of its first answer; fails with its log when it ends or takes too long."""
        deadline = time.monotonic() + START_SECONDS
        question: Question | None = None
        while time.monotonic() < deadline:
            with suppress(requests.RequestException, StopIteration):
                question = question or self.question
                answer = requests.post(question.url, question.body, headers=question.headers, timeout=10)
                if answer.status_code == 200:
                    return label(answer.json())
            if not self.client.inspect_container(self.id)["State"]["Running"]:
                break
            time.sleep(0.005)  # there is no event for it
        raise RuntimeError(f"{self.contestant.name} never answered: {self.client.logs(self.id).decode()[-3000:]}")

    @contextmanager
    def awake(self) -> Iterator[None]:
        """It alone runs: the others are paused."""
        self.client.unpause(self.id)
        try:
            yield
        finally:
            self.client.pause(self.id)


@contextmanager
def running(
    client: docker.APIClient,
    contestant: Contestant,
    models: Path,
    network: str,
    cores: str | None = SERVER_CORES,
    name: str | None = None,
) -> Iterator[Running]:
    """A container from `docker run` on; not yet answering."""
    created = client.create_container(
        contestant.image,
        contestant.command,
        name=name,
        environment=dict(contestant.environment),
        volumes=list(contestant.volumes),
        host_config=client.create_host_config(
            binds=[f"{models}:/models:ro"], network_mode=network, cpuset_cpus=cores, init=True
        ),
    )
    try:
        client.start(created["Id"])
        yield Running(client, contestant, created["Id"], (models / "picture.jpg").read_bytes())
    finally:
        client.remove_container(created["Id"], force=True, v=True)


def build_rival(client: docker.APIClient, name: str, start: str, environment: str) -> str:
    """The image of a rival on the image `start`; its id."""
    arguments = {"FROM": start, "LOCK": f"{name}.txt", "ENVIRONMENT": environment}
    tag = f"airlock-bench-{name}"
    for line in client.build(path=str(RIVALS), tag=tag, buildargs=arguments, rm=True, decode=True):
        if "error" in line:
            raise RuntimeError(f"the image of {name} cannot be built: {line['error']}")
    return str(client.inspect_image(tag)["Id"])


def label(answer: Any) -> str:
    """The class that was answered, by whichever of them: MLflow answers with rows below a name, batches with rows."""
    rows = answer.get("predictions", answer) if isinstance(answer, dict) else answer
    return str((rows[0] if isinstance(rows, list) else rows)["label"])


def _encoded(picture: bytes, form_field: str | None) -> tuple[bytes, dict[str, str]]:
    if form_field is None:
        return picture, {"Content-Type": "image/jpeg"}
    if form_field == "rows":
        rows = {"dataframe_split": {"columns": ["picture"], "data": [[base64.b64encode(picture).decode()]]}}
        return json.dumps(rows).encode(), {"Content-Type": "application/json"}
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{form_field}"; filename="1.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    )
    body = head.encode() + picture + f"\r\n--{BOUNDARY}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def _pss(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("Pss:"))
    return int(line.split()[1]) * 1024
