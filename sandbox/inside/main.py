"""The program inside the sandbox: gives up its rights, then becomes a Jupyter kernel.

It is run as a script: nothing but its own folder of this package is readable where it runs. It reads one JSON line of
settings from standard input, writes one JSON line to standard output once its sockets are bound, and from then
on talks Jupyter. Everything here shares a process with the model's code, which may change any of it: it makes
results readable and bounded early, and the host trusts none of it.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import resource
import socket
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sandbox.inside.sandbox_text import CellOutput, CellStream, PrintedTooMuch, compact_traceback, encodable
else:
    # No package around it in there; its folder is on the path only for this.
    sys.path.insert(0, str(Path(__file__).parent))
    from sandbox_text import CellOutput, CellStream, PrintedTooMuch, compact_traceback, encodable

    sys.path.pop(0)

# Host kernels enforce RLIMIT_DATA when memory is asked for; this much is kept back to report the MemoryError.
MEMORY_RESERVE = 32 << 20
PR_SET_PDEATHSIG = 1
SIGKILL = 9


def give_up_rights(settings: dict[str, Any]) -> None:
    """Apply the limits and, where started as root, become an ordinary user for good."""
    memory = settings["memory_bytes"]
    limits = {
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_DATA: (memory, memory + MEMORY_RESERVE),
        # Shared mappings do not count as data; address space holds them, with room for libraries.
        resource.RLIMIT_AS: (memory + (4 << 30),) * 2,
        resource.RLIMIT_FSIZE: (settings["disk_bytes"],) * 2,
        resource.RLIMIT_NOFILE: (settings["open_files"],) * 2,
    }
    if settings["isolated"]:  # elsewhere the count would be that of all the user's processes
        limits[resource.RLIMIT_NPROC] = (settings["processes"],) * 2
    for name, pair in limits.items():
        resource.setrlimit(name, pair)
    if settings["uid"] is not None:
        os.setgroups([])
        os.setresgid(settings["uid"], settings["uid"], settings["uid"])
        os.setresuid(settings["uid"], settings["uid"], settings["uid"])
    if not settings["isolated"]:
        # Bubblewrap dies with the host and takes the kernel along; without it the kernel does so itself.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL)
        if os.getppid() != settings["host"]:  # it died before this was arranged
            sys.exit("the host is gone")


def leaks(settings: dict[str, Any]) -> list[str]:
    """Try to get out; name what worked. Run in each kernel before it reports itself ready."""
    found = []
    if os.getuid() == 0 or os.geteuid() == 0:
        found.append("it runs as root")
    if Path(settings["canary"]).exists():
        found.append("a file of the host is visible")
    for name, host in settings["namespaces"].items():
        if str(Path(f"/proc/self/ns/{name}").readlink()) == host:
            found.append(f"it shares the host's {name} namespace")
    try:
        Path("/usr/.sandbox-probe").touch()
        found.append("/usr is writable")
    except OSError:
        pass
    if len(socket.if_nameindex()) > 1:
        found.append("it sees network interfaces")
    return found


def start_kernel(settings: dict[str, Any]) -> Any:
    """Build the kernel application with its sockets bound, not yet serving."""
    sys.modules["debugpy"] = None  # type: ignore[assignment]  # saves a fifth of the start, serves no one here
    from ipykernel.compiler import XCachingCompiler
    from ipykernel.displayhook import ZMQShellDisplayHook
    from ipykernel.ipkernel import IPythonKernel
    from ipykernel.kernelapp import IPKernelApp
    from ipykernel.zmqshell import ZMQInteractiveShell
    from IPython.core.error import UsageError
    from traitlets.config import Config

    output = CellOutput(settings["output_chars"] // 2, settings["printed_chars"])
    streams = [CellStream(output, "stdout", 1), CellStream(output, "stderr", 2)]
    memory = settings["memory_bytes"]

    class Compiler(XCachingCompiler):
        cell = 1

        def get_code_name(self, raw_code: str, code: str, number: int) -> str:
            return f"<cell {Compiler.cell}>"

    class DisplayHook(ZMQShellDisplayHook):
        """Keeps the last expression's value as text, for the reply."""

        value: str | None = None

        def write_output_prompt(self) -> None: ...

        def write_format_data(self, format_dict: dict[str, Any], md_dict: Any = None) -> None:
            self.value = format_dict.get("text/plain")

        def log_output(self, format_dict: dict[str, Any]) -> None: ...

        def finish_displayhook(self) -> None:
            self._is_active = False

    class Shell(ZMQInteractiveShell):
        """IPython's shell with compact errors, and nothing kept of a cell once it is over."""

        displayhook_class = DisplayHook
        failure: tuple[str, str] | None = None

        def showtraceback(self, exc_tuple: Any = None, *args: Any, **kwargs: Any) -> None:
            kind, error, trace = exc_tuple or sys.exc_info()
            assert kind is not None and error is not None
            outcome = "error"
            if issubclass(kind, MemoryError):
                outcome = "memory"
                resource.setrlimit(resource.RLIMIT_DATA, (memory + MEMORY_RESERVE,) * 2)
            if issubclass(kind, PrintedTooMuch):
                most = settings["printed_chars"]
                self.failure = (
                    "output",
                    f"OutputLimitError: the code printed more than {most:,} characters and was stopped.",
                )
            elif kind is UsageError:
                self.failure = (outcome, f"UsageError: {error}")
            else:
                self.failure = (outcome, compact_traceback(kind, error, trace))

        def showsyntaxerror(self, *args: Any, **kwargs: Any) -> None:
            self.showtraceback()

        def showindentationerror(self) -> None:
            self.showtraceback()

        def _format_exception_for_storage(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            return {}

    class Kernel(IPythonKernel):
        shell_class = Shell
        compiler_class = Compiler

        async def do_execute(
            self,
            code: str,
            silent: bool,
            store_history: bool = True,
            user_expressions: Any = None,
            allow_stdin: bool = False,
            *,
            cell_meta: Any = None,
            cell_id: Any = None,
        ) -> dict[str, Any]:
            shell: Any = self.shell
            session: Any = self.session
            Compiler.cell = cell_meta["cell"]
            shell.failure = shell.displayhook.value = None
            open_stdin(cell_meta["stdin"])
            sys.stdout, sys.stderr = streams
            header = shell.parent_header
            topic = f"kernel.{self.ident}.stream".encode()
            output.send = lambda content: session.send(self.iopub_socket, "stream", content, header, ident=topic)
            output.begin()
            try:
                await run(shell, self, code)
            finally:
                output.finish()
            outcome, error = shell.failure or ("ok", None)
            reply = {
                "status": "error" if error is not None else "ok",
                "execution_count": shell.execution_count,
                "user_expressions": {},
                "payload": [],
                "ename": outcome,
                "evalue": "",
                "traceback": [],
                "outcome": outcome,
                "error": error and shorten(error),
                "value": shell.displayhook.value and shorten(shell.displayhook.value),
            }
            shell.payload_manager.clear_payload()
            shell.failure = shell.last_execution_result = None
            if outcome == "memory":
                # With too little left for the next cell to live on, the host had better start afresh.
                reply["exhausted"] = data_bytes() > memory * 0.9
                resource.setrlimit(resource.RLIMIT_DATA, (memory, memory + MEMORY_RESERVE))
            return reply

    def shorten(text: str) -> str:
        keep = settings["output_chars"]
        if len(text) > 2 * keep:
            text = f"{text[:keep]}\n[... {len(text) - 2 * keep:,} characters cut ...]\n{text[-keep:]}"
        return encodable(text)

    class App(IPKernelApp):
        """The stock application less what a sandboxed kernel has no use for."""

        kernel_class = Kernel

        def init_io(self) -> None:
            sys.stdout, sys.stderr = streams
            self.displayhook = DisplayHookHolder()

        def init_connection_file(self) -> None: ...

        def write_connection_file(self, **kwargs: Any) -> None: ...

        def init_heartbeat(self) -> None: ...

        def init_poller(self) -> None: ...

        def reset_io(self) -> None: ...

    class DisplayHookHolder:
        get_execution_count: Any = None

    config = Config()
    config.Session.key = settings["key"].encode()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    app: Any = App.instance(
        config=config, transport="ipc", ip=settings["sockets"], log_level=50, connection_file="unused.json"
    )
    app.shell_port, app.iopub_port, app.stdin_port, app.control_port = 1, 2, 3, 4
    app.initialize([])
    shell = app.kernel.shell
    shell.display_formatter.active_types = ["text/plain"]
    shell.displayhook.do_full_cache = False  # keeps `_` but not every value ever shown
    shell.display_pub.publish = lambda data, *args, **kwargs: sys.stdout.write(data.get("text/plain", "") + "\n")
    for name in ("exit", "quit"):
        shell.user_ns[name] = sys.exit
    shell.user_ns.pop("open", None)  # IPython's refuses open(0), which programs that read stdin use
    warnings.filterwarnings("ignore", message="To exit: use")
    output.take_descriptors()
    return app


async def run(shell: Any, kernel: Any, code: str) -> None:
    """Run one cell in the shell, in the event loop if it awaits something."""
    broken = None
    try:
        transformed = shell.transform_cell(code)
    except Exception:
        transformed, broken = code, sys.exc_info()
    if shell.should_run_async(code, transformed_cell=transformed, preprocessing_exc_tuple=broken):
        cell = shell.run_cell_async(
            code, store_history=True, transformed_cell=transformed, preprocessing_exc_tuple=broken
        )
        task = asyncio.ensure_future(cell)
        with kernel._cancel_on_sigint(task):
            await task
    else:
        shell.run_cell(code, store_history=True)


def open_stdin(text: str) -> None:
    """Make `text` what descriptor 0 and `sys.stdin` read."""
    handle = os.memfd_create("stdin")
    os.write(handle, text.encode("utf-8", "replace"))
    os.lseek(handle, 0, os.SEEK_SET)
    if handle != 0:  # it is where the last cell has closed its standard input
        os.dup2(handle, 0)
        os.close(handle)
    sys.stdin = open(0, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115


def data_bytes() -> int:
    """Private memory in use, as RLIMIT_DATA counts it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0


def main() -> None:
    """Become a kernel."""
    settings = json.loads(sys.stdin.readline())
    give_up_rights(settings)
    report = leaks(settings) if settings["isolated"] else []
    app = start_kernel(settings)
    # Descriptor 1 is the cells' file by now; the host listens at the copy made here.
    os.write(REPORT, json.dumps({"ready": True, "leaks": report}).encode() + b"\n")
    os.close(REPORT)
    app.start()


if __name__ == "__main__":
    REPORT = os.dup(1)
    main()
