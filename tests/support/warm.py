"""Python that has torch and transformers imported already: a command in a process of its own, seconds faster.

``tool`` writes an executable that stands for ``python``, with some first words. Called with ``-m MODULE`` or a file, it
asks a process that has imported all to fork; the fork has the caller's arguments, folder, environment and standard
streams, and gets its signals. Anything else is given to Python itself. What an import reads from the environment is the
tests' own. To show that a command imports what it needs, how long that takes, or what it hides, call Python instead.
"""

from __future__ import annotations

import atexit
import json
import os
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path

_CLIENT = """\
import json, os, signal, socket, sys
arguments = {first!r} + sys.argv[1:]
if not arguments or (arguments[0].startswith("-") and arguments[0] != "-m"):
    os.execv({python!r}, [{python!r}, *arguments])
server = socket.socket(socket.AF_UNIX)
server.connect({path!r})
words = json.dumps([arguments, os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [len(words).to_bytes(8, "big")], [0, 1, 2])
server.sendall(words)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda number, frame: server.send(bytes([number])))
status = int.from_bytes(server.recv(4), "big")
if os.WIFSIGNALED(status):
    signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
    os.kill(os.getpid(), os.WTERMSIG(status))
os._exit(os.waitstatus_to_exitcode(status))
"""


def tool(path: Path, *first: str) -> None:
    """Write an executable that stands for ``python FIRST...``."""
    client = path.parent / f".{path.name}.py"
    client.write_text(_CLIENT.format(first=list(first), python=sys.executable, path=str(_server())), encoding="utf-8")
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{client}" "$@"\n', encoding="utf-8")
    path.chmod(0o755)


@cache
def python() -> str:
    """A tool that stands for ``python``."""
    path = _server().with_name("python")
    tool(path)
    return str(path)


@cache
def _server() -> Path:
    """The socket of this process's own server, which ends with it."""
    folder = tempfile.TemporaryDirectory(prefix="warm")  # a path short enough for a socket
    path = Path(folder.name) / "socket"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(16)
        command = [sys.executable, str(Path(__file__)), str(listening.fileno())]
        process = subprocess.Popen(command, pass_fds=[listening.fileno()], stdin=subprocess.PIPE)

    def end() -> None:
        process.kill()
        process.wait()
        folder.cleanup()

    atexit.register(end)
    return path


def _serve(listening: socket.socket) -> list[str] | None:
    """Fork for each caller until standard input ends. Returns the arguments in a fork, and None at the end."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the processes between end by themselves
    while listening.fileno() in select.select([listening.fileno(), 0], [], [])[0]:
        connection, _ = listening.accept()
        if os.fork():
            connection.close()
            continue
        listening.close()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        arguments, folder, environment, streams = _read(connection)
        child = os.fork()
        if not child:
            connection.close()
            _become(folder, environment, streams)
            return arguments
        for stream in streams:
            os.close(stream)
        _watch(connection, child)
    return None


def _read(connection: socket.socket) -> tuple[list[str], str, dict[str, str], list[int]]:
    size, streams, _, _ = socket.recv_fds(connection, 8, 3)
    with connection.makefile("rb") as words:
        arguments, folder, environment = json.loads(words.read(int.from_bytes(size, "big")))
    return arguments, folder, environment, streams


def _watch(connection: socket.socket, child: int) -> None:
    """Pass signals on to the fork, and its exit status to the caller. Never returns."""
    ended = os.pidfd_open(child)
    while connection.fileno() in select.select([connection.fileno(), ended], [], [])[0]:
        number = connection.recv(1)
        with suppress(ProcessLookupError):
            os.kill(child, number[0] if number else signal.SIGKILL)
        if not number:  # the caller was killed
            break
    _, status = os.waitpid(child, 0)
    with suppress(OSError):
        connection.send(status.to_bytes(4, "big"))
    os._exit(0)


def _become(folder: str, environment: Mapping[str, str], streams: Sequence[int]) -> None:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    utf8 = partial(open, encoding="utf-8", closefd=False)
    sys.stdin, sys.stdout, sys.stderr = utf8(0), utf8(1, "w"), utf8(2, "w", buffering=1, errors="backslashreplace")
    random.seed()


def _run(arguments: list[str]) -> None:
    if arguments[0] == "-m":
        sys.path.insert(0, str(Path.cwd()))
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, str(Path(arguments[0]).resolve().parent))
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    del sys.path[0]  # the folder of this file
    import torch  # noqa: F401
    from transformers.models.llama import modeling_llama  # noqa: F401

    from start_agent.engines.transformers import loading  # noqa: F401

    arguments = _serve(socket.socket(fileno=int(sys.argv[1])))
    if arguments is not None:
        _run(arguments)
