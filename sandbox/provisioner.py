"""A kernel provisioner that gives stock Jupyter clients isolated kernels.

::

    async with Sandbox(Limits(seconds=600)) as box:
        manager = kernel_manager(box)  # an AsyncKernelManager like any other
        await manager.start_kernel()

The client is trusted, the kernel is not and never talks ZeroMQ: the five channels that a client expects are served on
the host (`sandbox.bridge`), which translates between them and a `Session` of the sandbox. So all limits and checks of
the sandbox also hold for Jupyter clients. "With Jupyter clients" in README.md lists the differences to stock kernels.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from typing import Any

import traitlets
from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.manager import AsyncKernelManager, KernelManager
from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase
from jupyter_client.session import Session as Wire

from sandbox import folders
from sandbox.bridge import PORTS, Bridge
from sandbox.limits import Limits
from sandbox.sandbox import Sandbox
from sandbox.session import KernelSession


class SandboxProvisioner(KernelProvisionerBase):
    """Uses a session of a sandbox as the kernel of an `AsyncKernelManager`.

    Made by `kernel_manager`, or by jupyter_client itself for a kernelspec that names ``start-agent-sandbox``. When the
    kernel dies, the session replaces it and the cell's error says so; for Jupyter the kernel stays alive.
    """

    sandbox = traitlets.Any(None, help="an open Sandbox; None to open one for this kernel alone")
    limits = traitlets.Dict(help="the `Limits` of this kernel's sandbox, if it opens one").tag(config=True)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._life: asyncio.Task[None] | None = None
        self._session: KernelSession | None = None
        self._folder: folders.Held | None = None
        self._connection_file: str | None = None  # if it is in our folder

    @property
    def has_process(self) -> bool:
        """Whether there is a kernel, or one that has ended but was not waited for."""
        return self._life is not None

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Discard the command and environment of the kernelspec."""
        if isinstance(self.parent, KernelManager):
            self.kernel_id = self.parent.kernel_id
        return {"cmd": []}

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Open a session and serve it.

        Raises:
            SandboxError: as `Sandbox.session`, and as opening a sandbox if none was given.
            TypeError: the manager is not an AsyncKernelManager, whose event loop the kernel needs.
        """
        manager = self.parent
        if not isinstance(manager, AsyncKernelManager):
            raise TypeError(f"isolated kernels need an AsyncKernelManager, not {type(manager).__name__}")
        if self._folder is None:
            self._folder = await asyncio.to_thread(folders.make, 0o700)
        if manager.connection_file in ("", self._connection_file):
            manager.connection_file = self._connection_file = str(self._folder.path / "connection.json")
        key, scheme = manager.session.key, manager.session.signature_scheme
        address = str(self._folder.path / "channel")
        ready = asyncio.get_running_loop().create_future()
        wire = Wire(key=key, signature_scheme=scheme, username="kernel")
        self._life = life = asyncio.create_task(self._live(wire, address, ready))
        try:
            await asyncio.wait({life, ready}, return_when=asyncio.FIRST_COMPLETED)
            if life.done():
                life.result()
        except BaseException:
            await self.kill()
            await self.wait()
            await self.cleanup()
            raise
        life.add_done_callback(self._note_end)
        self.connection_info = {
            "transport": "ipc",
            "ip": address,
            "key": key,
            "signature_scheme": scheme,
            "shell_port": PORTS["shell"],
            "iopub_port": PORTS["iopub"],
            "stdin_port": PORTS["stdin"],
            "control_port": PORTS["control"],
            "hb_port": PORTS["hb"],
        }
        return self.connection_info

    async def _live(self, wire: Wire, address: str, ready: asyncio.Future[None]) -> None:
        """The lifetime of a kernel, in one task, so that there is one clean-up whatever ends it."""
        async with AsyncExitStack() as stack:
            box = self.sandbox
            if box is None:
                box = await stack.enter_async_context(Sandbox(Limits(**self.limits), size=1, prestart=0))
            session = await stack.enter_async_context(box.session())
            bridge = Bridge(session, wire, address)
            stack.callback(bridge.close)
            self._session = session
            ready.set_result(None)
            await bridge.serve()

    def _note_end(self, life: asyncio.Task[None]) -> None:
        if not life.cancelled() and (error := life.exception()) is not None:
            self.log.error("The kernel %s has ended: %s", self.kernel_id, error)

    async def poll(self) -> int | None:
        """None while the kernel is alive; then 0 if it was shut down, -9 if killed, 1 if its sandbox failed."""
        if self._life is None:
            return 0
        if not self._life.done():
            return None
        if self._life.cancelled():
            return -signal.SIGKILL
        return 0 if self._life.exception() is None else 1

    async def wait(self) -> int | None:
        """Wait until the kernel is gone. Returns as `poll`."""
        if self._life is not None:
            await asyncio.wait({self._life})
        status = await self.poll()
        self._life = self._session = None
        return status

    async def send_signal(self, signum: int) -> None:
        """Interrupt (SIGINT) or end (SIGTERM, SIGKILL) the kernel; 0 does nothing. Raises ValueError for others."""
        if signum == signal.SIGINT:
            if self._session is not None:
                self._session.interrupt()
        elif signum in (signal.SIGTERM, signal.SIGKILL):
            await self.kill()
        elif signum != 0:
            raise ValueError(f"isolated kernels take SIGINT, SIGTERM and SIGKILL, not {signum}")

    async def kill(self, restart: bool = False) -> None:
        """Start to shut the kernel down; `wait` waits for it."""
        if self._life is not None and not self._life.cancelling():  # do not interrupt the clean-up
            self._life.cancel()

    async def terminate(self, restart: bool = False) -> None:
        """As `kill`: code gets no chance to react."""
        await self.kill(restart)

    async def cleanup(self, restart: bool = False) -> None:
        """Remove the folder of the sockets, unless a restarted kernel will use it."""
        if not restart and self._folder is not None:
            folder, self._folder = self._folder, None
            await asyncio.to_thread(folder.remove)


def kernel_manager(sandbox: Sandbox, **traits: Any) -> AsyncKernelManager:
    """A stock kernel manager whose kernels are sessions of a sandbox.

    Args:
        sandbox: an open sandbox of the event loop in which the manager is used; the caller keeps it open.
        traits: traits of the manager.
    """
    manager = AsyncKernelManager(**traits)
    manager.provisioner = SandboxProvisioner(parent=manager, sandbox=sandbox)
    return manager
