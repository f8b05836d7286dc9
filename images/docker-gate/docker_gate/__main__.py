"""`python -m docker_gate`: serve until told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal

from docker_gate.server import serve


async def main() -> None:
    """Read the environment and serve.

    `DOCKER_GATE_NETWORK`: the one network that containers may join. `DOCKER_GATE_SOCKET`, `DOCKER_GATE_PORT`: where
    the engine and where the gate listens.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve(
        os.environ.get("DOCKER_GATE_SOCKET", "/var/run/docker.sock"),
        os.environ.get("DOCKER_GATE_NETWORK", "airlock"),
        "0.0.0.0",  # noqa: S104 - in its own network; Compose publishes no port
        int(os.environ.get("DOCKER_GATE_PORT", "2375")),
        stop,
    )


if __name__ == "__main__":
    asyncio.run(main())
