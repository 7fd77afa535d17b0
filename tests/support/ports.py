"""Free ports for servers."""

from __future__ import annotations

import socket
from contextlib import closing


def free_port() -> int:
    """A free port on loopback."""
    with closing(socket.socket()) as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])
