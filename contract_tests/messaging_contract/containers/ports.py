"""Host ports that stay the same while a container goes away and comes back."""

from __future__ import annotations

import random
import socket

HOST = "127.0.0.1"
"""Brokers are published here and nowhere else: they have well-known passwords, or none."""

# Below the ephemeral ranges of Linux, macOS and Windows. A port of an ephemeral range can be given to some outgoing
# connection while the container is down, and then the container cannot come back.
_PORTS = range(20_000, 32_000)


def free_port() -> int:
    """Returns a port of 127.0.0.1 that nothing listens on now. Raises OSError when none was found in 100 tries."""
    for port in random.sample(_PORTS, 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port found on {HOST} between {_PORTS.start} and {_PORTS.stop}")
