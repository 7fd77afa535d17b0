"""The first step of a zygote: receive from the host what the world is to be, make it where nothing else has, begin."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys

sys.modules["debugpy"] = None  # type: ignore[assignment]  # slow to load, and serves no one here

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
        if world["tier"] != 1:  # there bubblewrap sees to it
            system.die_with_parent(world["parent"])
        if world["tier"] == 2:
            root.change(control, world)
        zygote.run(control, world)
    except Exception as error:
        control.send(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode()[:4000])


def _reset_inherited() -> None:
    """Undo what of the process that opened the sandbox would pass to its kernels, and change what cells do."""
    os.umask(0o022)  # what is made here, other users have to be able to read
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # with SIGINT blocked, no cell could be interrupted
    for name in (resource.RLIMIT_AS, resource.RLIMIT_DATA, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE):
        hard = resource.getrlimit(name)[1]
        resource.setrlimit(name, (hard, hard))
