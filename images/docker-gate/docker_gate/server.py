"""The gate's HTTP side: read the call, check it, write it anew, pass the answer through."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Mapping
from typing import Any

import aiohttp
from aiohttp import web

from docker_gate.calls import Call, read_call
from docker_gate.create_body import read_create_body
from docker_gate.engine import Engine, EngineDown, body_of
from docker_gate.refusal import NotOurs, Refused
from docker_gate.strict_json import read_object

HEADERS = ("Content-Type", "Api-Version", "Ostype", "Server", "X-Docker-Container-Path-Stat")
INFO = ("ServerVersion", "OperatingSystem", "KernelVersion", "Architecture", "NCPU", "MemTotal", "Runtimes")

log = logging.getLogger("docker_gate")


class Gate:
    """The filter between Airlock and the engine."""

    def __init__(self, engine: Engine, network: str) -> None:
        self._engine = engine
        self._network = network

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; what is refused is logged, without its body."""
        try:
            return await self._let_through(request)
        except Refused as refusal:
            log.warning("refused from=%s call=%s reason=%s", request.remote, _shown(request), refusal)
            return _problem(403, str(refusal))
        except NotOurs as absent:
            log.warning("not ours from=%s call=%s", request.remote, _shown(request))
            return _problem(404, str(absent))
        except EngineDown as down:
            log.error("engine down call=%s reason=%s", _shown(request), down)
            return _problem(502, str(down))

    async def _let_through(self, request: web.BaseRequest) -> web.StreamResponse:
        if "Upgrade" in request.headers:
            raise Refused("a connection is not upgraded here")
        call = read_call(request.method, request.raw_path)
        if call.scope == "create":
            return await self._create(request, call)
        if call.scope == "info":
            return await self._info(call)
        path = call.path
        if call.scope == "container":
            # By id: between the check and the call a name could pass to another container.
            path = f"/containers/{await self._engine.container_id(call.version, call.name)}{call.suffix}"
        elif call.scope == "image":
            path = f"/images/{await self._engine.image_id(call.version, call.name)}/json"
        return await self._forward(request, call, path)

    async def _create(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        try:
            raw = await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise Refused("the body is too large") from None
        asked = read_create_body(read_object(raw))
        asked.check_network(self._network)
        asked.check_name(call.query.get("name"))
        if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.:@/-]{0,255}", asked.image) or ".." in asked.image:
            raise Refused("Image: not the name of an image")
        image_id = await self._engine.image_id(call.version, asked.image)
        return await self._forward(request, call, call.path, asked.write(image_id))

    async def _info(self, call: Call) -> web.Response:
        async with self._engine.call("GET", f"{call.version}/info", {}) as response:
            raw = await body_of(response)
            if response.status != 200:
                return web.Response(status=response.status, body=raw, content_type="application/json")
            info: dict[str, Any] = json.loads(raw)
        return web.json_response({key: info[key] for key in INFO if key in info})

    async def _forward(
        self, request: web.BaseRequest, call: Call, path: str, body: Mapping[str, Any] | None = None
    ) -> web.StreamResponse:
        """Send the call and pass the answer through as it comes; errors of Docker too."""
        async with self._engine.call(call.method, f"{call.version}{path}", call.query, body) as upstream:
            answer = web.StreamResponse(status=upstream.status, reason=upstream.reason)
            answer.headers.update({name: upstream.headers[name] for name in HEADERS if name in upstream.headers})
            await answer.prepare(request)
            try:
                async for chunk in upstream.content.iter_any():
                    await answer.write(chunk)
            except aiohttp.ClientError:
                # Cut, not ended: the caller must see that the rest is missing.
                log.error("answer cut short call=%s", _shown(request))
                if request.transport:
                    request.transport.abort()
                return answer
            await answer.write_eof()
            return answer


async def serve(socket_path: str, network: str, host: str, port: int, stop: asyncio.Event) -> None:
    """Serve on `host:port` in front of the engine at `socket_path` until `stop` is set."""
    engine = Engine(socket_path)
    # No router: it would decode and match paths in its own way, before ours.
    # A caller that goes away ends its call to Docker too, else followed logs would stay open for ever.
    server = web.Server(Gate(engine, network).handle, handler_cancellation=True, access_log=None)
    runner = web.ServerRunner(server, shutdown_timeout=1)
    try:
        await runner.setup()
        await web.TCPSite(runner, host, port).start()
        await stop.wait()
    finally:
        await runner.cleanup()
        await engine.close()


def _problem(status: int, message: str) -> web.Response:
    return web.json_response({"message": f"docker-gate: {message}"}, status=status)


def _shown(request: web.BaseRequest) -> str:
    return repr(f"{request.method} {request.raw_path[:200]}")
