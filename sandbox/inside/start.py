"""The first step of a zygote: hear from the host what the world is to be, make it where nobody else has, begin."""

from __future__ import annotations

import json
import os
import socket
import sys

sys.modules["debugpy"] = None  # type: ignore[assignment]  # slow to load, and serves no one here

from . import root, system, zygote  # noqa: E402 - after the line above

_MESSAGE_BYTES = 128 << 10


def main() -> None:
    """Become the zygote. The connection to the host is descriptor 0."""
    control = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    world = json.loads(control.recv(_MESSAGE_BYTES))
    try:
        if world["tier"] != 1:  # there bubblewrap sees to it
            system.die_with_parent(world["parent"])
        if world["tier"] == 2:
            root.change(control, world)
        zygote.run(control, world)
    except Exception as error:
        control.send(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode()[:4000])
