"""The Docker engine behind its socket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from docker_gate.refusal import NotOurs

CONNECT_SECONDS = 5
IMAGES = frozenset({"trainer", "api"})


class EngineDown(Exception):
    """The engine does not answer on its socket (502)."""


class Engine:
    """Calls to the engine; a new connection for each, since one may be held for hours."""

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(path=socket_path, force_close=True, limit=0),
            # No limit on the whole call or on silence: a container may say nothing for an hour.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            # Bytes are passed on as they are, without a header that would say how they are packed.
            headers={"Accept-Encoding": "identity"},
            auto_decompress=False,
        )

    async def close(self) -> None:
        """Drop what is open."""
        await self._session.close()

    @asynccontextmanager
    async def call(
        self, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One call; leaving the block closes the connection. Raises EngineDown when nothing answers."""
        try:
            response = await self._session.request(
                method, f"http://docker{path}", params=dict(query), json=body, allow_redirects=False
            )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise EngineDown(
                f"Docker does not answer at {self._socket_path} ({error}); is the engine running, and is the socket's "
                "group in this container's group_add?"
            ) from error
        try:
            yield response
        finally:
            response.close()

    async def container_id(self, version: str, name: str) -> str:
        """The full id of a container of ours. Raises NotOurs for any other."""
        found = await self._inspect(f"{version}/containers/{name}/json")
        if found is None or (found["Config"]["Labels"] or {}).get("airlock.managed") != "true":
            raise NotOurs(f"No such container: {name} (or it has no label airlock.managed=true)")
        return str(found["Id"])

    async def image_id(self, version: str, name: str) -> str:
        """The id of an image that containers may be made of. Raises NotOurs for any other."""
        found = await self._inspect(f"{version}/images/{name}/json")
        labels = (found or {}).get("Config", {}).get("Labels") or {}
        if found is None or labels.get("airlock.image") not in IMAGES:
            raise NotOurs(f"No such image: {name} (or it has no label airlock.image={' or '.join(sorted(IMAGES))})")
        return str(found["Id"])

    async def _inspect(self, path: str) -> dict[str, Any] | None:
        async with self.call("GET", path, {}) as response:
            raw = await body_of(response)
            if response.status == 404:
                return None
            if response.status != 200:
                raise EngineDown(
                    f"Docker answered {response.status} to GET {path}: {raw[:200].decode(errors='replace')}"
                )
            found: dict[str, Any] = json.loads(raw)
            return found


async def body_of(response: aiohttp.ClientResponse) -> bytes:
    """An answer in full. Raises EngineDown where it breaks off."""
    try:
        return await response.read()
    except aiohttp.ClientError as error:
        raise EngineDown(f"Docker's answer to GET {response.url.path} broke off ({error})") from error
