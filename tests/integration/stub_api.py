"""Stands in for the API image: answers as docs/contracts.md says, from its environment alone.

The first letters of its run decide how it behaves: `dead` never gets healthy, `f00d` predicts something else. After
more requests than its proof takes, `fa11` fails half of them, `510` is slow, `c4a5` crashes.
"""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from http import HTTPStatus

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
PROVED = 100
BOUNDS = (0.01, 0.1, 1.0, 10.0)
seconds_taken: list[float] = []
PROBABILITIES = {"0": 0.9, "1": 0.1} if RUN.startswith("f00d") else {"0": 0.25, "1": 0.75}


async def answered(method: str, path: str, headers: Mapping[str, str]) -> tuple[int, str]:
    """Status and body of one request's answer."""
    if method == "GET":
        if RUN.startswith("dead"):
            return 503, json.dumps({"title": "warming up"})
        return 200, metrics() if path == "/metrics" else json.dumps({**ABOUT, "path": path})
    began = time.monotonic()
    if len(seconds_taken) > PROVED:
        if RUN.startswith("c4a5"):
            os._exit(1)
        if RUN.startswith("fa11") and len(seconds_taken) % 2:
            seconds_taken.append(0.0)
            return 500, json.dumps({"title": "no luck"})
        if RUN.startswith("510"):
            await asyncio.sleep(0.5)
    await asyncio.sleep(float(headers.get("x-take-seconds", 0)))
    seconds_taken.append(time.monotonic() - began)
    answer = {"label": "1", "probabilities": PROBABILITIES, "release_id": ABOUT["release_id"], "run_id": RUN}
    return 200, json.dumps(answer)


async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One client, until it goes."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            first, *lines = head.decode().strip().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            await reader.readexactly(int(headers.get("content-length", 0)))
            method, path, _ = first.split()
            status, body = await answered(method, path, headers)
            words = f"{status} {HTTPStatus(status).phrase}"
            writer.write(f"HTTP/1.1 {words}\r\nContent-Length: {len(body.encode())}\r\n\r\n{body}".encode())
            await writer.drain()
    except (asyncio.IncompleteReadError, OSError):
        pass  # HAProxy's health check goes when it has seen the status
    finally:
        writer.close()


def metrics() -> str:
    """As Prometheus reads it."""
    taken = list(seconds_taken)
    counts = [(str(bound), sum(seconds <= bound for seconds in taken)) for bound in BOUNDS] + [("+Inf", len(taken))]
    lines = [f'airlock_predict_seconds_bucket{{le="{bound}"}} {count}' for bound, count in counts]
    return "\n".join(["# TYPE airlock_predict_seconds histogram", *lines, ""])


async def serve() -> None:
    """For ever."""
    server = await asyncio.start_server(connected, "", 8000, limit=65_536, backlog=128)
    async with server:
        await server.serve_forever()


print(f"serving the run {RUN}", flush=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
asyncio.run(serve())
