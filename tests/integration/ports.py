"""Ports of loopback for the servers that tests start."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack
from pathlib import Path

# From here on the kernel takes ports for outgoing connections: a port that is free now may be taken a moment later.
EPHEMERAL = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
CHOICE = range(EPHEMERAL // 2, EPHEMERAL)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, and that no connection is given."""
    with ExitStack() as stack:
        found: list[int] = []
        while len(found) < count:
            port = random.choice(CHOICE)
            listener = stack.enter_context(socket.socket())
            try:
                listener.bind(("", port))
            except OSError:  # taken
                continue
            found.append(port)
        return found
