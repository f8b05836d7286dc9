"""Stands in for the API image: answers as docs/contracts.md says, from its environment alone.

The first letters of its run decide how it behaves: `dead` never gets healthy, `f00d` predicts something else.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RUN = os.environ["MLFLOW_RUN_ID"]
ABOUT = {
    "status": "ok",
    "project": os.environ["PROJECT"],
    "release_id": os.environ["RELEASE_ID"],
    "run_id": RUN,
    "dvc_hash": RUN,
    "dvc_hash_onnx": RUN,
    "snapshot_id": "20261123T160000000Z-c71581aa",
    "snapshot_md5": f"{RUN}.dir",
    "api_image_id": os.environ["IMAGE_ID"],
}
PROBABILITIES = {"0": 0.9, "1": 0.1} if RUN.startswith("f00d") else {"0": 0.25, "1": 0.75}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if RUN.startswith("dead"):
            self.answer(503, {"title": "warming up"})
        else:
            self.answer(200, {**ABOUT, "path": self.path})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if seconds := self.headers.get("X-Take-Seconds"):
            time.sleep(float(seconds))
        answer = {"label": "1", "probabilities": PROBABILITIES, "release_id": ABOUT["release_id"], "run_id": RUN}
        self.answer(200, answer)

    def answer(self, status: int, content: Mapping[str, object]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # HAProxy's health check goes when it has seen the status


print(f"serving the run {RUN}", flush=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
Server(("", 8000), Handler).serve_forever()
