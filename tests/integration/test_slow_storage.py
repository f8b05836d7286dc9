"""An S3 server that is slow, or that has stopped answering."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trainer
from trainer import s3
from trainer.cache import Cache
from trainer.errors import UnavailableError
from trainer.s3 import S3Access

PARTS = [f"part {number} ".encode() * 1000 for number in range(8)]
PART_SECONDS = 0.6
BODY = b"".join(PARTS)
MD5 = hashlib.md5(BODY, usedforsecurity=False).hexdigest()


@contextmanager
def slow_server(parts: int) -> Iterator[tuple[str, threading.Event]]:
    """Answers requests with that many PARTS, one after the other, then with nothing; an event says it was asked."""
    asked, end = threading.Event(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.set()
            if parts:
                self.send_response(206)  # what a whole range is answered with
                for name, value in {
                    "Content-Length": str(len(BODY)),
                    "Content-Range": f"bytes 0-{len(BODY) - 1}/{len(BODY)}",
                    "ETag": f'"{MD5}"',
                    "Last-Modified": "Mon, 23 Nov 2026 17:14:09 GMT",
                }.items():
                    self.send_header(name, value)
                self.end_headers()
            for part in PARTS[:parts]:
                self.wfile.write(part)
                end.wait(PART_SECONDS)
            if parts < len(PARTS):
                end.wait(60)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            end.set()
            server.shutdown()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transfer has stalled after three seconds; nothing is tried again."""
    monkeypatch.setattr(s3, "READ_SECONDS", 3)
    monkeypatch.setattr(s3, "RETRIES", 0)


@pytest.mark.usefixtures("impatient")
def test_a_transfer_may_take_longer_than_a_stall_as_long_as_it_moves(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with slow_server(len(PARTS)) as (url, _):
        cache.fetch(S3Access(url, "key", "secret"), "dvc", {MD5: len(BODY)})
    assert cache.path(MD5).read_bytes() == BODY


@pytest.mark.usefixtures("impatient")
def test_a_transfer_that_stalls_is_given_up(tmp_path: Path) -> None:
    begin = time.monotonic()
    with slow_server(2) as (url, _), pytest.raises(UnavailableError, match=f"reading dvc/data/files/md5/{MD5[:2]}"):
        Cache(tmp_path).fetch(S3Access(url, "key", "secret"), "dvc", {MD5: len(BODY)})
    assert time.monotonic() - begin < 20


def test_sigterm_ends_a_command_that_waits_for_a_server_which_does_not_answer(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    with slow_server(0) as (url, asked):
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(trainer.__file__).parents[1]),
            "RESULT_PATH": str(result),
            "PROJECT": "pets",
            "S3_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            **{name: name.lower().replace("_", "-") for name in ("TRAIN_BUCKET", "AIRLOCK_BUCKET", "DVC_BUCKET")},
        }
        command = subprocess.Popen([sys.executable, "-m", "trainer", "snapshot"], env=environment)
        try:
            assert asked.wait(30)
            command.send_signal(signal.SIGTERM)
            assert command.wait(10) == 143
        finally:
            command.kill()
    assert json.loads(result.read_text())["error"]["kind"] == "interrupted"
