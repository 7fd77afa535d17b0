"""The zygote: a process with everything loaded, from which each session's kernel is forked.

It runs no model code and reads nothing that a kernel wrote. Its only connection is to the host, and no kernel inherits
it. For each kernel the host sends a request and a few descriptors: the kernel's ends of the two pipes of its wire,
which also carry its settings, and the entries of its cgroups. The zygote returns a pidfd, with which the host watches
and kills the process, and later the exit status; or the reason of a failure. If the host cannot receive the pidfd, it
asks the zygote to kill the process.

The zygote must stay single-threaded: Linux does not let multi-threaded processes create user namespaces.
"""

from __future__ import annotations

import errno
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import tempfile
from typing import Any, NoReturn

from . import libraries, seeds, shared, system, warm, wire
from .build import build
from .enter import enter, filter_of, shares_user
from .requests import read_settings
from .server import Server
from .shell import Shell

_MESSAGE_BYTES = 64
_DESCRIPTORS = 4


class Zygote:
    """Forks kernels on demand.

    Args:
        control: the connection to the host, a socket of packets.
        world: settings common to all kernels; see `sandbox.zygote`.
        shell: the shell that kernels start with.
    """

    def __init__(self, control: socket.socket, world: dict[str, Any], shell: Shell) -> None:
        self._control = control
        self._world = world
        self._shell = shell
        self._children: dict[int, tuple[int, int]] = {}
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._namespace = os.open("/proc/self/ns/pid", os.O_RDONLY) if world["tier"] in (1, 2) else None

    def serve(self) -> None:
        """Fork on request and report exit statuses, until the host is gone."""
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor != self._control.fileno():
                    self._reap(descriptor)
                    continue
                message, descriptors, flags, _ = socket.recv_fds(self._control, _MESSAGE_BYTES, _DESCRIPTORS)
                if not message:
                    return
                if message.startswith(b"-"):
                    self._kill(int(message[1:]))
                else:
                    self._serve_fork(int(message), descriptors, complete=not flags & socket.MSG_CTRUNC)

    def _serve_fork(self, name: int, descriptors: list[int], *, complete: bool) -> None:
        """Fork a kernel, or send the host the reason of the failure. No other kernel is affected."""
        try:
            if not complete:  # the descriptors could not be received
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            self._fork(name, descriptors)
        except OSError as error:
            failed = {"failed": name, "errno": error.errno, "reason": error.strerror}
            self._control.send(json.dumps(failed).encode())
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _fork(self, name: int, descriptors: list[int]) -> None:
        """Fork a kernel and send its pidfd to the host. Raises OSError; then there is no process."""
        try:
            if self._namespace is not None:
                system.unshare(system.CLONE_NEWPID)  # for the next child
            pid = os.fork()
            if pid == 0:
                become_kernel(self._world, self._shell, descriptors)
        finally:  # or the next pid namespace would be created within this one
            if self._namespace is not None:
                system.setns(self._namespace, system.CLONE_NEWPID)
        process = None
        try:
            process = os.pidfd_open(pid)
            socket.send_fds(self._control, [json.dumps({"forked": name, "pid": pid}).encode()], [process])
        except OSError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            if process is not None:
                os.close(process)
            raise
        self._children[process] = (name, pid)
        self._poll.register(process, select.POLLIN)

    def _kill(self, name: int) -> None:
        for process, (other, _) in self._children.items():
            if other == name:  # not reaped yet, so the pidfd is valid
                signal.pidfd_send_signal(process, signal.SIGKILL)

    def _reap(self, process: int) -> None:
        self._poll.unregister(process)
        name, pid = self._children.pop(process)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.close(process)
        self._control.send(json.dumps({"ended": name, "status": status}).encode())


def become_kernel(world: dict[str, Any], shell: Shell, descriptors: list[int]) -> NoReturn:
    """In the forked process: close the zygote's descriptors, isolate, serve. Never returns."""
    requests, replies, *groups = descriptors
    outside = ""
    try:
        _close_others(descriptors)
        try:
            for group in groups:  # first, so that everything is counted
                os.write(group, b"0")
        except OSError as error:
            outside = str(error)
        for group in groups:
            os.close(group)
        settings = read_settings(requests)
        try:
            found = enter(world, settings)
            _own_state(world, settings)
            server = Server(shell, settings, requests, replies)
            failure = f"the isolation does not hold here: {'; '.join(found)}" if found else ""
        except Exception as error:
            failure = f"the kernel could not be isolated: {type(error).__name__}: {error}"
        if failure:
            wire.write(replies, [wire.frame(wire.FAILED, failure.encode("utf-8", "replace"))])
            os._exit(1)
        wire.write(replies, [wire.frame(wire.READY, outside.encode("utf-8", "replace"))])
        server.serve()
    except BaseException:
        os._exit(1)
    os._exit(0)


def _close_others(keep: list[int]) -> None:
    nothing = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    kept = sorted({0, 1, 2, *keep})
    for lower, higher in zip(kept, [*kept[1:], 1 << 16], strict=True):
        os.closerange(lower + 1, higher)


def _own_state(world: dict[str, Any], settings: dict[str, Any]) -> None:
    """Set what must differ between forks."""
    os.environ["HOME"] = settings["home"]
    os.environ["TMPDIR"] = settings["temporary"]
    if world["tier"] in (0, 3):  # in the other tiers all homes have the same path
        os.environ["IPYTHONDIR"] = f"{settings['home']}/.ipython"
        os.environ["MPLCONFIGDIR"] = f"{settings['home']}/.matplotlib"
    tempfile.tempdir = None
    seeds.apply(None)


def run(control: socket.socket, world: dict[str, Any]) -> None:
    """Load everything, then serve forks until the host is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    world["zygote"] = os.getpid()
    libraries.install()
    if shares_user(world):
        shared.do_without()
    for name in world["preload"]:
        importlib.import_module(name)
    warm.up()
    shell = build()
    if world["tier"] > 0:
        filter_of(world)
    threads = len(os.listdir("/proc/self/task"))  # noqa: PTH208
    if threads != 1:
        raise RuntimeError(f"preloading {', '.join(world['preload'])} has started {threads - 1} threads")
    gc.collect()
    gc.freeze()  # or garbage collection in a kernel would write to shared pages and so copy them
    control.send(json.dumps({"ready": sys.version}).encode())
    Zygote(control, world, shell).serve()
