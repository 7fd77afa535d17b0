"""Stock Jupyter managers and clients on isolated kernels."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager, KernelManager

from sandbox import KernelStartError, Limits, Sandbox
from sandbox.provisioner import SandboxProvisioner, kernel_manager
from sandbox.zygote import Zygote
from tests.support.processes import sandboxed

_SECONDS = 30.0  # for what takes milliseconds, on a machine that is busy
_LIMITS = Limits(seconds=60)


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place for the test's sandboxes and sockets; nothing may be left, there or elsewhere."""
    with tempfile.TemporaryDirectory(prefix="t-") as name:
        monkeypatch.setattr(tempfile, "tempdir", name)
        monkeypatch.setenv("JUPYTER_RUNTIME_DIR", f"{name}/runtime")
        descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        yield Path(name)
        assert sandboxed() == {}
        assert list(Path(name).iterdir()) == []
        assert len(os.listdir("/proc/self/fd")) <= descriptors  # noqa: PTH208


@asynccontextmanager
async def connected(manager: AsyncKernelManager) -> AsyncIterator[Any]:
    """A client of a manager's new kernel, which is shut down at the end."""
    await manager.start_kernel()
    client = manager.client()
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=_SECONDS)
        yield client
    finally:
        client.stop_channels()
        if manager.has_kernel:  # a stock manager cannot be shut down twice
            await manager.shutdown_kernel()


async def run(client: Any, code: str, **options: Any) -> tuple[dict[str, Any], list[tuple[str, Any]]]:
    """A cell's reply, and what was published of it but for its status."""
    received = []

    def receive(message: dict[str, Any]) -> None:
        content = message["content"]
        kind = message["header"]["msg_type"]
        if kind == "stream":
            received.append((kind, content["text"]))
        elif kind == "execute_result":
            received.append((kind, content["data"]["text/plain"]))
        elif kind == "error":
            received.append((kind, content["ename"]))

    reply = await client.execute_interactive(code, output_hook=receive, timeout=_SECONDS, **options)
    return reply["content"], received


async def interrupted(manager: AsyncKernelManager, client: Any, by_message: bool = False) -> Any:
    """The reply of an endless loop that was sent, interrupted by a signal or by a message."""
    while True:
        # Repeatedly, since one may come before the loop has started and have no effect.
        if by_message:
            client.control_channel.send(client.session.msg("interrupt_request", {}))
        else:
            await manager.interrupt_kernel()
        try:
            return await client.get_shell_msg(timeout=0.1)
        except Empty:
            continue


async def test_cells() -> None:
    async with Sandbox(_LIMITS, size=1) as box, connected(kernel_manager(box)) as client:
        content, received = await run(client, "x = 6 * 7\nprint('é')\nx")
        assert content["status"] == "ok" and content["execution_count"] == 1
        assert received == [("stream", "é\n"), ("execute_result", "42")]
        content, received = await run(client, "x + 1")
        assert content["execution_count"] == 2 and received == [("execute_result", "43")]
        content, received = await run(client, "def f():\n    raise ValueError('no: 1\\n2')\nf()")
        assert (content["status"], content["ename"], content["evalue"]) == ("error", "ValueError", "no: 1\n2")
        assert any("line 2" in line for line in content["traceback"]) and received == [("error", "ValueError")]
        for code, name in (("1 +", "SyntaxError"), ("input()", "EOFError"), ("assert False", "AssertionError")):
            content, _ = await run(client, code, allow_stdin=False)
            assert content["ename"] == name
        content, received = await run(client, "print(1); 5", silent=True)
        assert content["status"] == "ok" and received == []
        content, _ = await run(client, "import os; os._exit(3)")
        assert content["ename"] == "ProcessDiedError" and "variables are lost" in content["evalue"]
        content, _ = await run(client, "x")
        assert content["ename"] == "NameError"


async def test_other_requests() -> None:
    async with Sandbox(_LIMITS, size=1) as box:
        manager = kernel_manager(box)
        async with connected(manager) as client:
            assert await manager.is_alive() and await client.is_alive()
            completed = await client.complete("pri", 2, reply=True, timeout=_SECONDS)
            assert completed["content"]["matches"] == [] and completed["content"]["cursor_end"] == 2
            for ask in (client.is_complete, client.inspect):
                assert (await ask("print", reply=True, timeout=_SECONDS))["content"]["status"]
            for ask in (client.history, client.comm_info, client.kernel_info):
                assert (await ask(reply=True, timeout=_SECONDS))["content"]["status"] == "ok"
            with pytest.raises(ValueError, match="SIGINT"):
                await manager.signal_kernel(10)
        assert not await manager.is_alive()


async def test_an_error_aborts_what_was_queued_before_it() -> None:
    async with Sandbox(_LIMITS, size=1) as box:
        manager = kernel_manager(box)
        async with connected(manager) as client:
            sent = [client.execute(code) for code in ("while True: pass", "x = 1", "y = 2")]
            replies = [await interrupted(manager, client)]
            replies += [await client.get_shell_msg(timeout=_SECONDS) for _ in sent[1:]]
            assert [reply["parent_header"]["msg_id"] for reply in replies] == sent
            assert [reply["content"]["status"] for reply in replies] == ["error", "aborted", "aborted"]
            assert (await run(client, "1"))[0]["status"] == "ok"


@pytest.mark.parametrize("by_message", [False, True])
async def test_an_endless_loop_is_interrupted(by_message: bool) -> None:
    async with Sandbox(_LIMITS, size=1) as box:
        manager = kernel_manager(box)
        async with connected(manager) as client:
            await run(client, "kept = 7")
            request = client.execute("while True: pass")
            reply = await interrupted(manager, client, by_message)
            assert reply["parent_header"]["msg_id"] == request
            assert reply["content"]["ename"] == "KeyboardInterrupt"
            assert (await run(client, "kept"))[1] == [("execute_result", "7")]
            await manager.interrupt_kernel()  # of nothing
            assert (await run(client, "kept"))[1] == [("execute_result", "7")]


@pytest.mark.parametrize("now", [False, True])
async def test_restart_and_shutdown_while_a_cell_runs(now: bool) -> None:
    async with Sandbox(_LIMITS, size=1, prestart=0) as box:
        manager = kernel_manager(box)
        async with connected(manager) as client:
            await run(client, "x = 1")
            client.execute("while True: pass")
            await manager.restart_kernel(now=now)
            await client.wait_for_ready(timeout=_SECONDS)
            content, _ = await run(client, "x")
            assert content["ename"] == "NameError" and box.stats.kernels_live == 1
            client.execute("try:\n    while True: pass\nfinally:\n    while True: pass")
            await manager.shutdown_kernel(now=now)
            assert box.stats.kernels_live == 0 and not manager.has_kernel
        async with connected(kernel_manager(box)) as client:  # the place is free again
            assert (await run(client, "1"))[0]["status"] == "ok"


async def test_where_the_temporary_folder_has_a_long_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(folder / ("long" * 25)))
    async with Sandbox(_LIMITS, size=1) as box, connected(kernel_manager(box)) as client:
        assert (await run(client, "1"))[0]["status"] == "ok"


async def test_two_managers_are_isolated() -> None:
    async with (
        Sandbox(_LIMITS, size=2) as box,
        connected(kernel_manager(box)) as one,
        connected(kernel_manager(box)) as other,
    ):
        await run(one, "x = 1; open('mine', 'w').close()")
        content, _ = await run(other, "x")
        assert content["ename"] == "NameError"
        assert (await run(other, "import os; os.listdir()"))[1] == [("execute_result", "[]")]
        assert (await run(one, "x"))[1] == [("execute_result", "1")]


async def test_by_its_name_in_a_kernelspec(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"provisioner_name": "start-agent-sandbox", "config": {"limits": {"seconds": 50.0}}}
    spec = KernelSpec(argv=["false"], language="python", metadata={"kernel_provisioner": asked})
    monkeypatch.setattr("jupyter_client.kernelspec.KernelSpecManager.get_kernel_spec", lambda manager, name: spec)
    manager = AsyncKernelManager()
    async with connected(manager) as client:
        assert isinstance(manager.provisioner, SandboxProvisioner)
        assert (await run(client, "1 + 1"))[1] == [("execute_result", "2")]


async def test_a_blocking_manager_is_refused() -> None:
    with pytest.raises(TypeError, match="AsyncKernelManager"):
        await SandboxProvisioner(parent=KernelManager()).launch_kernel([])


async def test_a_start_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Sandbox(_LIMITS, size=1, prestart=0) as box:
        manager = kernel_manager(box)

        async def refuse(zygote: Zygote, descriptors: list[int]) -> None:
            raise KernelStartError("not today")

        with monkeypatch.context() as patch:
            patch.setattr(Zygote, "fork", refuse)
            with pytest.raises(KernelStartError, match="not today"):
                await manager.start_kernel()
        assert not manager.has_kernel
        async with connected(manager) as client:
            assert (await run(client, "1"))[0]["status"] == "ok"


async def test_a_start_that_is_cancelled() -> None:
    async with Sandbox(_LIMITS, size=1, prestart=0) as box:
        manager = kernel_manager(box)
        async with box.session():
            start = asyncio.ensure_future(manager.start_kernel())
            while not box.stats.waiting:  # noqa: ASYNC110 - a turn of the loop, not a time
                await asyncio.sleep(0)
            start.cancel()
            with pytest.raises(asyncio.CancelledError):
                await start
            assert not manager.has_kernel and not box.stats.waiting


async def test_clients_without_the_key_are_ignored(folder: Path) -> None:
    async with Sandbox(_LIMITS, size=1) as box:
        manager = kernel_manager(box)
        async with connected(manager) as client:
            stranger = manager.client(session=client.session.clone())
            stranger.session.key = b"another"
            stranger.start_channels(iopub=False, hb=False, stdin=False)
            stranger.execute("x = 1")
            assert (await run(client, "x"))[0]["ename"] == "NameError"
            assert manager.provisioner is not None and manager.provisioner.connection_info["transport"] == "ipc"
            assert Path(manager.provisioner.connection_info["ip"]).parent.stat().st_mode & 0o777 == 0o700
            stranger.stop_channels()
            client.shell_channel.send(client.session.msg("shutdown_request", {"restart": False}))
            assert (await client.get_shell_msg(timeout=_SECONDS))["content"]["status"] == "ok"


async def test_the_end_of_the_sandbox_is_the_kernels() -> None:
    async with Sandbox(_LIMITS, size=1) as box:
        manager = kernel_manager(box)
        await manager.start_kernel()
        client = manager.client()
        client.start_channels()
        await client.wait_for_ready(timeout=_SECONDS)
    content, _ = await run(client, "1")
    assert content["ename"] == "SandboxClosed"
    client.stop_channels()
    await manager.shutdown_kernel()
    assert not await manager.is_alive()
