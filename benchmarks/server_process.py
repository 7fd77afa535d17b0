"""A server in a process of its own, as a benchmark sees it: its address, what it uses, and what it leaves."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import socket
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 2**20
_START_SECONDS = 180.0
_STOP_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Usage:
    """Of a process and all below it: seconds of processor time (kernels that have ended left out), processes; of the
    process alone: resident memory and descriptors."""

    cpu: float = 0.0
    processes: int = 0
    resident_mb: float = 0.0
    descriptors: int = 0


def running(process: int | None = None) -> Usage:
    """What a process, this one where None, and those below it use now."""
    process = os.getpid() if process is None else process
    below, rows = {process}, _processes()
    grew = True
    while grew:
        more = {number for number, (parent, _, _) in rows.items() if parent in below} - below
        below, grew = below | more, bool(more)
    found = [rows[number] for number in below if number in rows]
    cpu = sum(row[1] for row in found)
    resident = rows[process][2] if process in rows else 0.0
    return Usage(cpu, len(found), resident, len(os.listdir(f"/proc/{process}/fd")))  # noqa: PTH208


def _processes() -> dict[int, tuple[int, float, float]]:
    """All processes: parent, seconds of processor time with those of ended children, resident MB."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                words = (folder / "stat").read_text().rpartition(")")[2].split()
                cpu = sum(map(int, words[11:15])) / _TICKS
                found[int(folder.name)] = int(words[1]), cpu, int(words[21]) * _PAGE_MB
    return found


def orphans() -> int:
    """Folders of sandboxes in the folder for temporary files whose owners are dead: nobody has a lock on them."""
    found = 0
    for folder in Path(tempfile.gettempdir()).glob("kernels-*"):
        with suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found += 1
            finally:
                os.close(descriptor)
    return found


async def post(
    port: int, path: str, body: Mapping[str, Any] | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection with one request sent: GET where there is no body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = b"" if body is None else json.dumps(body).encode()
    head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    return reader, writer


class Server:
    """Starts a server, ``async with``.

    Args:
        words: the command; its ``--port`` is put in place of ``0`` or ``{port}``.
        environment: beside that of this process.
    """

    def __init__(self, words: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        place = words.index("--port") + 1
        self._words = [*words[:place], str(self.port), *words[place + 1 :]]
        self._environment = {**os.environ, **(environment or {})}
        self._started: set[int] = set()

    async def __aenter__(self) -> Self:
        """Start it. Raises RuntimeError where it does not answer in time."""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed at the end
        self._process = await asyncio.create_subprocess_exec(
            *self._words, stdout=self._log, stderr=self._log, env=self._environment, start_new_session=True
        )
        try:
            async with asyncio.timeout(_START_SECONDS):
                while not await self._answers():  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.2)
        except TimeoutError as error:
            await self.stop()
            raise RuntimeError(f"the server does not answer: {self.log()[-2000:]}") from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()
        self._log.close()

    async def _answers(self) -> bool:
        if self._process.returncode is not None:
            raise RuntimeError(f"the server has ended: {self.log()[-2000:]}")
        try:
            return b" 200 " in (await self._get("/health"))[:64]
        except OSError:
            return False

    async def _get(self, path: str) -> bytes:
        reader, writer = await post(self.port, path, None)
        try:
            return await reader.read()
        finally:
            writer.close()

    async def metrics(self) -> bytes:
        """What ``/metrics`` shows."""
        return (await self._get("/metrics")).replace(b"\r\n", b"\n")

    def usage(self) -> Usage:
        """What it uses now."""
        return running(self._process.pid)

    def log(self) -> str:
        """What it has printed."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    async def left(self) -> int:
        """Processes of its session that are still there a second after it has ended.

        Python's resource tracker ends when it reads that the process is gone, milliseconds later.
        """
        until = time.monotonic() + 1
        while (found := self._count()) and time.monotonic() < until:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)
        return found

    def _count(self) -> int:
        found = 0
        for folder in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                words = (folder / "stat").read_text().rpartition(")")[2].split()
                found += int(words[3]) == self._process.pid and words[0] != "Z"
        return found

    async def stop(self) -> int:
        """Have it end by SIGTERM; its exit code."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(_STOP_SECONDS):
                    await self._process.wait()
            except TimeoutError:
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                await self._process.wait()
        assert self._process.returncode is not None
        return self._process.returncode
