"""The watchdog's process, with a real mail server and a real web hook on loopback."""

from __future__ import annotations

import email
import http.server
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from include.alert_spool import Spool
from include.watchdog import STATE_FILE, read_state
from tests.integration.docker_engine import wait_until
from tests.integration.ports import free_ports

ROOT = Path(__file__).parents[2]
SECRET = "canary-5d1e0c7b"


@dataclass(frozen=True)
class Mail:
    """A mail server that keeps what it is given."""

    port: int
    letters: queue.Queue[tuple[str, str]]

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        letter = email.message_from_bytes(envelope.content)
        text = letter.get_payload(0) if letter.is_multipart() else letter
        self.letters.put((str(email.header.make_header(email.header.decode_header(letter["Subject"]))), str(text)))
        return "250 OK"


@contextmanager
def mail_server(port: int) -> Iterator[Mail]:
    """A real SMTP server on loopback."""
    mail = Mail(port, queue.Queue())
    controller = Controller(mail, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield mail
    finally:
        controller.stop()


@pytest.fixture
def hook() -> Iterator[tuple[int, queue.Queue[dict[str, Any]]]]:
    """A real HTTP receiver on loopback: its port, and what it got."""
    got: queue.Queue[dict[str, Any]] = queue.Queue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1], got
    server.shutdown()
    server.server_close()


@dataclass
class Dog:
    """The watchdog's process, to be started again."""

    directory: Path
    environment: dict[str, str]
    process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        with (self.directory / "log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "include.watchdog"], env=self.environment, stdout=log, stderr=log, text=True
            )

    def end(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=20)

    @property
    def spool(self) -> Spool:
        return Spool(self.directory)


@pytest.fixture
def ports() -> list[int]:
    return free_ports(2)


@pytest.fixture
def dog(tmp_path: Path, ports: list[int], hook: tuple[int, Any]) -> Iterator[Dog]:
    """A watchdog whose channels are the hook and a mail server that need not be there; S3 and Airflow are away."""
    nowhere = "http://127.0.0.1:1"
    channels = f"hook=json://127.0.0.1:{hook[0]},mail=mailto://127.0.0.1:{ports[0]}?from=a@x.example&to=ops@x.example"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "AIRLOCK_ALERTS_DIR": str(tmp_path),
        "AIRLOCK_ALERT_CHANNELS": f"{channels}&pass={SECRET}",
        "AIRLOCK_AIRFLOW_URL": nowhere,
        "AIRLOCK_S3_ENDPOINT_URL": nowhere,
        "AIRLOCK_S3_AIRFLOW_ACCESS_KEY_ID": "key",
        "AIRLOCK_S3_AIRFLOW_SECRET_ACCESS_KEY": "secret",
        **{f"AIRLOCK_{name}_URL": nowhere for name in ("MLFLOW", "MLFLOW_PUBLIC", "FRONT")},
        "AIRLOCK_DOCKER_URL": "tcp://127.0.0.1:1",
    }
    dog = Dog(tmp_path, environment)
    yield dog
    if dog.process is not None and dog.process.poll() is None:
        dog.end(signal.SIGKILL)


def test_an_incident_is_told_by_every_channel_and_its_end_with_the_same_id(
    dog: Dog, ports: list[int], hook: tuple[int, queue.Queue[dict[str, Any]]]
) -> None:
    with mail_server(ports[0]) as mail:
        dog.start()
        dog.spool.broken("digits", "retrain", "train failed: out of memory", "raise memory_bytes", "http://airflow/x")
        told = hook[1].get(timeout=60)
        subject, text = mail.letters.get(timeout=60)
        assert told["title"] == subject
        assert told["title"].endswith("digits: a retrain failed")
        assert "A retrain failed: train failed: out of memory" in told["message"]
        assert "Serving: what served goes on" in told["message"], "S3 is away, and the alert is sent"
        assert "Next: raise memory_bytes" in text
        dog.spool.well("digits", "retrain")
        ended = hook[1].get(timeout=60)
        assert ended["title"] == told["title"].replace("a retrain failed", "recovered, a retrain failed")
        assert mail.letters.get(timeout=60)[0] == ended["title"]
        assert dog.end(signal.SIGTERM) == 0
    assert SECRET not in (dog.directory / "log").read_text()


def test_killed_at_any_time_it_loses_nothing_and_a_dead_channel_gets_its_messages_when_it_is_back(
    dog: Dog, ports: list[int], hook: tuple[int, queue.Queue[dict[str, Any]]]
) -> None:
    dog.spool.broken("digits", "bucket", "S3 does not answer", "see whether it is up")
    dog.start()
    assert hook[1].get(timeout=60)["title"].endswith("digits: the bucket cannot be reached"), "though the mail is dead"
    assert hook[1].get(timeout=60)["title"].endswith("airlock: alerts cannot be delivered")
    dog.end(signal.SIGKILL)
    dog.spool.broken("digits", "bucket", "S3 does not answer", "see whether it is up")
    with mail_server(ports[0]) as mail:
        dog.start()
        subjects = [mail.letters.get(timeout=90)[0] for _ in range(3)]
        assert [subject.partition("] ")[2] for subject in subjects] == [
            "digits: the bucket cannot be reached",
            "airlock: alerts cannot be delivered",
            "airlock: recovered, alerts cannot be delivered",
        ]
        wait_until(lambda: read_state(dog.directory / STATE_FILE).outbox.letters == ())
    (bucket,) = [one for one in read_state(dog.directory / STATE_FILE).incidents.open if one.kind == "bucket"]
    assert bucket.count == 2
    assert list(dog.directory.glob("*.report.json")) == []


def test_an_airflow_that_does_not_answer_is_told(dog: Dog, hook: tuple[int, queue.Queue[dict[str, Any]]]) -> None:
    dog.start()
    told = hook[1].get(timeout=110)
    assert told["title"].endswith("airlock: Airflow does not answer")
    assert "`scripts/compose ps airflow-api-server`" in told["message"]


def test_a_report_that_nobody_can_read_is_said_and_holds_up_no_other(
    dog: Dog, hook: tuple[int, queue.Queue[dict[str, Any]]]
) -> None:
    (dog.directory / "0-1-a.report.json").write_text("{ half")
    dog.spool.broken("digits", "retrain", "train failed", "look")
    dog.start()
    assert hook[1].get(timeout=60)["title"].endswith("digits: a retrain failed")
    assert "a report could not be read and is removed: 0-1-a.report.json" in (dog.directory / "log").read_text()


def test_channels_that_cannot_be_used_end_it_with_the_name_and_without_the_url(dog: Dog) -> None:
    dog.environment["AIRLOCK_ALERT_CHANNELS"] = f"ops=nosuch://{SECRET}"
    dog.start()
    assert dog.process is not None
    assert dog.process.wait(timeout=60) == 1
    said = (dog.directory / "log").read_text()
    assert "the channel 'ops' cannot be used" in said
    assert SECRET not in said
