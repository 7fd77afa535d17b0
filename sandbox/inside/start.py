"""Entry point of a zygote: receives its configuration from the host, builds its root in tier 2, and runs it."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys

sys.modules["debugpy"] = None  # type: ignore[assignment]  # slow to load, and not needed

from . import own  # noqa: E402 - after the line above

own.install()

from . import root, system, zygote  # noqa: E402

_MESSAGE_BYTES = 128 << 10


def main() -> None:
    """Become the zygote. The connection to the host is descriptor 0."""
    _reset_inherited()
    control = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    world = json.loads(control.recv(_MESSAGE_BYTES))
    try:
        if world["tier"] != 1:  # in tier 1 bubblewrap does it
            system.die_with_parent(world["parent"])
        if world["tier"] == 2:
            root.change(control, world)
        zygote.run(control, world)
    except Exception as error:
        control.send(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode()[:4000])


def _reset_inherited() -> None:
    """Reset state inherited from the host process that would affect cells."""
    os.umask(0o022)  # files created here must be readable by other users
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # with SIGINT blocked, no cell could be interrupted
    for name in (resource.RLIMIT_AS, resource.RLIMIT_DATA, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE):
        hard = resource.getrlimit(name)[1]
        resource.setrlimit(name, (hard, hard))
