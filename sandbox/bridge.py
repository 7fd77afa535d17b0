"""Jupyter's five channels on the host, which give trusted clients access to one session of a sandbox.

Requests are translated into calls of the session and results into Jupyter messages, so that no message from a kernel
reaches a client.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import zmq
import zmq.asyncio
from jupyter_client.session import Session as Wire

from sandbox.errors import SandboxClosed, SandboxError
from sandbox.result import Outcome, Result
from sandbox.session import KernelSession

# The "ports" of the ipc transport: the suffixes of the socket names.
PORTS = {"shell": 1, "iopub": 2, "stdin": 3, "control": 4, "hb": 5}
_LINGER_MS = 100  # time for the last reply to be sent

_INFORMATION = {
    "status": "ok",
    "protocol_version": "5.4",
    "implementation": "start-agent-sandbox",
    "implementation_version": "1",
    "banner": "Isolated Python",
    "language_info": {
        "name": "python",
        "version": sys.version.split()[0],
        "mimetype": "text/x-python",
        "file_extension": ".py",
    },
}

_Request = dict[str, Any]


class Bridge:
    """Serves the five channels for one session.

    Args:
        session: runs the cells.
        wire: signs and checks messages.
        address: prefix of the socket names.
    """

    def __init__(self, session: KernelSession, wire: Wire, address: str) -> None:
        self._session = session
        self._wire = wire
        self._count = 0
        self._context = zmq.asyncio.Context()
        try:
            self._shell = self._bind("shell", zmq.ROUTER, address)
            self._iopub = self._bind("iopub", zmq.PUB, address)
            self._stdin = self._bind("stdin", zmq.ROUTER, address)  # bound but never used
            self._control = self._bind("control", zmq.ROUTER, address)
            self._heartbeat = self._bind("hb", zmq.ROUTER, address)
        except BaseException:
            self.close()
            raise

    def _bind(self, name: str, kind: int, address: str) -> zmq.asyncio.Socket:
        made = self._context.socket(kind)
        made.bind(f"ipc://{address}-{PORTS[name]}")
        return made

    def close(self) -> None:
        """Close the channels."""
        self._context.destroy(linger=_LINGER_MS)

    async def serve(self) -> None:
        """Serve requests until a shutdown request. Raises SandboxClosed if the sandbox is closed meanwhile."""
        tasks = [asyncio.create_task(work) for work in (self._serve_shell(), self._serve_control(), self._beat())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _beat(self) -> None:
        while True:
            self._heartbeat.send_multipart(await self._heartbeat.recv_multipart())

    async def _receive(self, channel: zmq.asyncio.Socket) -> tuple[list[bytes], _Request] | None:
        """The next message, or None if it is not valid."""
        frames = await channel.recv_multipart()
        try:
            identities, rest = self._wire.feed_identities(frames)
            return identities, self._wire.deserialize(rest)
        except (ValueError, TypeError, KeyError):
            return None

    async def _serve_shell(self) -> None:
        while True:
            received = await self._receive(self._shell)
            if received is None:
                continue
            identities, request = received
            kind = request["header"]["msg_type"]
            if kind != "execute_request":
                self._answer(self._shell, identities, request)
                if kind == "shutdown_request":  # clients before protocol 5.3 send it on this channel
                    return
                continue
            self._publish("status", {"execution_state": "busy"}, request)
            content, closed = await self._execute(request)
            queued = []
            if content["status"] == "error" and request["content"].get("stop_on_error", True):
                # Collected before the reply is sent: requests that a client sends after it are not aborted.
                while await self._shell.poll(0):
                    queued.append(await self._receive(self._shell))
            self._reply(self._shell, identities, request, content)
            for received in filter(None, queued):
                self._answer(self._shell, *received)
            if closed is not None:
                raise closed

    async def _serve_control(self) -> None:
        kind = ""
        while kind != "shutdown_request":
            received = await self._receive(self._control)
            if received is not None:
                identities, request = received
                kind = request["header"]["msg_type"]
                self._answer(self._control, identities, request)

    def _answer(self, channel: zmq.asyncio.Socket, identities: list[bytes], request: _Request) -> None:
        """Answer requests that need no kernel; abort execute requests; send no reply to unknown ones."""
        kind, asked = request["header"]["msg_type"], request["content"]
        if kind == "interrupt_request":
            self._session.interrupt()
        place = asked.get("cursor_pos", 0)
        contents: dict[str, dict[str, Any]] = {
            "kernel_info_request": _INFORMATION,
            "interrupt_request": {"status": "ok"},
            "shutdown_request": {"status": "ok", "restart": asked.get("restart", False)},
            "execute_request": {"status": "aborted", "execution_count": self._count},
            "is_complete_request": {"status": "unknown"},
            "complete_request": {"status": "ok", "matches": [], "metadata": {}}
            | {"cursor_start": place, "cursor_end": place},
            "inspect_request": {"status": "ok", "found": False, "data": {}, "metadata": {}},
            "history_request": {"status": "ok", "history": []},
            "comm_info_request": {"status": "ok", "comms": {}},
        }
        self._publish("status", {"execution_state": "busy"}, request)
        self._reply(channel, identities, request, contents.get(kind))

    def _reply(
        self,
        channel: zmq.asyncio.Socket,
        identities: list[bytes],
        request: _Request,
        content: dict[str, Any] | None,
    ) -> None:
        if content is not None:
            kind = request["header"]["msg_type"].replace("_request", "_reply")
            self._wire.send(channel, kind, content, parent=request, ident=identities)
        self._publish("status", {"execution_state": "idle"}, request)

    def _publish(self, kind: str, content: dict[str, Any], request: _Request) -> None:
        self._wire.send(self._iopub, kind, content, parent=request, ident=kind.encode())

    async def _execute(self, request: _Request) -> tuple[dict[str, Any], SandboxClosed | None]:
        """Run a cell and publish its result.

        Returns:
            The content of the reply, and the error if the sandbox was closed.
        """
        asked = request["content"]
        code, silent = str(asked.get("code", "")), asked.get("silent", False)
        if not silent:
            self._count += bool(asked.get("store_history", True))
            self._publish("execute_input", {"code": code, "execution_count": self._count}, request)
        closed = None
        try:
            result = await self._session.execute(code)
        except SandboxError as error:
            result = Result(Outcome.DIED, error=f"{type(error).__name__}: {error}", state_lost=True)
            closed = error if isinstance(error, SandboxClosed) else None
        count = {"execution_count": self._count}
        printed = result.stdout if result.printed is None else result.printed
        if printed and not silent:
            self._publish("stream", {"name": "stdout", "text": printed}, request)
        if result.value is not None and not silent:
            shown = {"data": {"text/plain": result.value}, "metadata": {}}
            self._publish("execute_result", shown | count, request)
        if result.error is None:
            return {"status": "ok", "user_expressions": {}, "payload": []} | count, closed
        failure = _failure(result.error)
        if not silent:
            self._publish("error", failure, request)
        return {"status": "error"} | failure | count, closed


def _failure(error: str) -> dict[str, Any]:
    """Jupyter's fields of an error (ename, evalue, traceback), from the traceback that the model reads."""
    last = error.rpartition("Traceback (most recent call last):\n")[2].split("\n")
    # Frames are indented; the first line that is not is the exception.
    begin = next((place for place, line in enumerate(last) if line[:1].strip()), 0)
    name, _, value = "\n".join(last[begin:]).partition(": ")
    if not name.replace(".", "").isidentifier():
        name, value = (last[begin], "\n".join(last[begin + 1 :])) if last[begin].isidentifier() else ("Error", error)
    return {"ename": name, "evalue": value, "traceback": error.split("\n")}
