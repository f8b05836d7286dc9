"""Airflow's API as far as a task that is being stopped asks it."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class AirflowStub:
    """Says of every task instance that it is in `state`; while `up` is False, it answers nothing."""

    url: str = ""
    state: str | None = "failed"
    up: bool = True


@contextmanager
def airflow_stub() -> Iterator[AirflowStub]:
    """A stand-in on loopback."""
    stub = AirflowStub()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers["Authorization"] != "Bearer token":
                self._say(401, {})
            elif "/taskInstances/" in self.path and stub.up:
                self._say(200, {"state": stub.state})
            elif "/pools/" in self.path and stub.up:
                self._say(200, {"slots": 128})
            else:
                self._say(503, {})

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            good = asked == {"username": "watchdog", "password": "stub"}
            self._say(201 if good else 401, {"access_token": "token"} if good else {})

        def _say(self, status: int, content: object) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
