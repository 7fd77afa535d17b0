"""The sandbox session of a container: opened on first use; reports when its variables were lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from typing import Any

from sandbox import BaseSandbox, FileError, FileInfo, FilesLost, Result, SandboxClosed, Session

STATE_LOST = "(a new Python process: the variables and files of earlier cells are lost)"
"""What the model reads before the first output after its kernel was lost."""


class ContainerSession(Session):
    """The session of a container: opened on first use, kept until the container is closed.

    Args:
        sandbox: the sandbox to open it in.
        seed: seed of the cells' random numbers; None for a random one.
        lost: whether cells that the model has seen ran in a kernel that is gone.
    """

    def __init__(self, sandbox: BaseSandbox, *, seed: int | None = None, lost: bool = False) -> None:
        self._sandbox, self._seed, self._lost = sandbox, seed, lost
        self._stack = AsyncExitStack()
        self._session: Session | None = None
        self._opening = asyncio.Lock()
        self._used = self._closed = False

    @property
    def opened(self) -> bool:
        """Whether it occupies a kernel of the sandbox."""
        return self._session is not None

    async def execute(self, code: str, **options: Any) -> Result:
        """Run a cell, with its images. See ``Session.execute``."""
        session = await self.open()
        if self._sandbox.images:
            options.setdefault("images", True)
        with self._noting_loss():
            result = await session.execute(code, **options)
        self._used = not result.state_lost  # where it was lost in this cell, the result says so itself
        if self._lost:
            self._lost = False
            result = _after_loss(result)
        return result

    async def write_file(self, name: str, data: bytes, *, timeout: float | None = None) -> None:
        """Write a file. See ``Session.write_file``."""
        session = await self.open()
        with self._noting_loss():
            await session.write_file(name, data, timeout=timeout)
        self._used = True

    async def read_file(self, name: str, *, timeout: float | None = None) -> bytes:
        """The content of a file. See ``Session.read_file``."""
        session = await self.open()
        with self._noting_loss():
            return await session.read_file(name, timeout=timeout)

    async def list_files(self, *, timeout: float | None = None) -> tuple[FileInfo, ...]:
        """All files; none if the session was never used. See ``Session.list_files``."""
        if self._session is None:
            return ()
        with self._noting_loss():
            return await self._session.list_files(timeout=timeout)

    async def remove_file(self, name: str, *, timeout: float | None = None) -> None:
        """Remove a file. See ``Session.remove_file``."""
        session = await self.open()
        with self._noting_loss():
            await session.remove_file(name, timeout=timeout)

    @contextmanager
    def _noting_loss(self) -> Iterator[None]:
        """Note a loss of the variables: by a cancellation, a sandbox fault, or a kernel lost in a file operation."""
        try:
            yield
        except BaseException as error:
            if not isinstance(error, FileError) or isinstance(error, FilesLost):
                self._lost, self._used = self._lost or self._used, False
            raise

    async def open(self) -> Session:
        """The sandbox's session. Raises ``SandboxError``."""
        async with self._opening:
            if self._closed:
                raise SandboxClosed("the container is closed")
            if self._session is None:
                self._session = await self._stack.enter_async_context(self._sandbox.session(seed=self._seed))
            return self._session

    async def close(self) -> None:
        """Close the session; the kernel is killed."""
        async with self._opening:
            self._closed = True
            await self._stack.aclose()


def _after_loss(result: Result) -> Result:
    """The result with a first line that reports the loss."""
    printed = None if result.printed is None else f"{STATE_LOST}\n{result.printed}"
    return replace(result, stdout=f"{STATE_LOST}\n{result.stdout}", printed=printed, state_lost=True)
