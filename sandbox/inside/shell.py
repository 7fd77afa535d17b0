"""IPython's shell with what a model needs of it: short errors, values as text, nothing kept of a cell.

It is built once, in the zygote, and forked with it: building it starts no thread and opens nothing.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import tempfile
import warnings
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from ipykernel.compiler import XCachingCompiler
from ipykernel.displayhook import ZMQShellDisplayHook
from ipykernel.zmqshell import ZMQInteractiveShell
from IPython.core.error import UsageError
from traitlets.config import Config

from .enter import MEMORY_RESERVE
from .text import CellOutput, CellStream, PrintedTooMuch, compact_traceback, encodable


class Compiler(XCachingCompiler):
    """Names cells by their number in the session."""

    cell = 1

    def get_code_name(self, raw_code: str, code: str, number: int) -> str:
        """The file name of a cell in tracebacks."""
        return f"<cell {Compiler.cell}>"


class DisplayHook(ZMQShellDisplayHook):
    """Keeps the last expression's value as text, for the reply."""

    value: str | None = None

    def write_output_prompt(self) -> None:
        """Nothing: there is no prompt."""

    def write_format_data(self, format_dict: dict[str, Any], md_dict: Any = None) -> None:
        """Keep the text."""
        self.value = format_dict.get("text/plain")

    def log_output(self, format_dict: dict[str, Any]) -> None:
        """Nothing: there is no log."""

    def finish_displayhook(self) -> None:
        """Nothing is sent: the value travels with the reply."""
        self._is_active = False


class Shell(ZMQInteractiveShell):
    """One session's shell. `settings` and `open_output` are set after the fork."""

    displayhook_class = DisplayHook
    system = ZMQInteractiveShell.system_raw  # `!command` without a terminal, whose lines end otherwise
    failure: tuple[str, str] | None = None
    settings: dict[str, Any]
    streams: list[Any]
    displayhook: Any
    payload_manager: Any
    run_cell: Any

    def open_output(self, settings: dict[str, Any]) -> CellOutput:
        """Make the place for what cells print. Once, in the forked process."""
        self.settings = settings
        output = CellOutput(settings["output_chars"] // 2, settings["printed_chars"])
        self.streams = [CellStream(output, "stdout", 1), CellStream(output, "stderr", 2)]
        sys.stdout, sys.stderr = self.streams
        output.take_descriptors()
        return output

    def run(self, code: str, cell: int, stdin: str) -> dict[str, Any]:
        """Run one cell: the content of the reply."""
        Compiler.cell = cell
        self.failure = self.displayhook.value = None
        open_stdin(stdin)
        sys.stdout, sys.stderr = self.streams
        self.run_cell(code, store_history=True)
        outcome, error = self.failure or ("ok", None)
        value = self.displayhook.value
        reply = {
            "status": "error" if error is not None else "ok",
            "execution_count": self.execution_count,
            "user_expressions": {},
            "payload": [],
            "ename": outcome,
            "evalue": "",
            "traceback": [],
            "outcome": outcome,
            "error": None if error is None else self._shorten(error),
            "value": None if value is None else self._shorten(value),
        }
        self.payload_manager.clear_payload()
        self.failure = self.last_execution_result = None
        if outcome == "memory":
            # With too little left for the next cell to live on, the host had better start afresh.
            memory = self.settings["memory_bytes"]
            reply["exhausted"] = data_bytes() > memory * 0.9
            resource.setrlimit(resource.RLIMIT_DATA, (memory, memory + MEMORY_RESERVE))
        return reply

    def showtraceback(self, exc_tuple: Any = None, *args: Any, **kwargs: Any) -> None:
        """Keep a compact traceback for the reply instead of printing one."""
        kind, error, trace = exc_tuple or sys.exc_info()
        assert kind is not None and error is not None
        outcome = "error"
        if issubclass(kind, MemoryError):
            outcome = "memory"
            resource.setrlimit(resource.RLIMIT_DATA, (self.settings["memory_bytes"] + MEMORY_RESERVE,) * 2)
        if issubclass(kind, PrintedTooMuch):
            most = self.settings["printed_chars"]
            words = f"OutputLimitError: the code printed more than {most:,} characters and was stopped."
            self.failure = ("output", words)
        elif kind is UsageError:
            self.failure = (outcome, f"UsageError: {error}")
        else:
            self.failure = (outcome, compact_traceback(kind, error, trace))

    def showsyntaxerror(self, *args: Any, **kwargs: Any) -> None:
        """As any other."""
        self.showtraceback()

    def showindentationerror(self) -> None:
        """As any other."""
        self.showtraceback()

    def _format_exception_for_storage(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {}

    def _shorten(self, text: str) -> str:
        keep = self.settings["output_chars"]
        if len(text) > 2 * keep:
            text = f"{text[:keep]}\n[... {len(text) - 2 * keep:,} characters cut ...]\n{text[-keep:]}"
        return encodable(text)


def build() -> Shell:
    """The shell, warm: it has run a cell, so that all that is loaded at the first use is loaded."""
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    shell: Any = Shell.instance(config=config, compiler_class=Compiler)
    shell.display_formatter.active_types = ["text/plain"]
    shell.displayhook.do_full_cache = False  # keeps `_` but not every value ever shown
    shell.display_pub.publish = lambda data, *args, **kwargs: sys.stdout.write(data.get("text/plain", "") + "\n")
    shell.display_pub.clear_output = lambda *args, **kwargs: None
    shell.loop_runner = run_in_loop
    for name in ("exit", "quit"):
        shell.user_ns[name] = sys.exit
    shell.user_ns.pop("open", None)  # IPython's refuses open(0), which programs that read stdin use
    warnings.filterwarnings("ignore", message="To exit: use")
    begun = dict(shell.user_ns)
    for code in (
        "sum(range(10)) / 4.0",
        "x = [1, 'a']\nfor y in x:\n    pass\nx",
        "await __import__('asyncio').sleep(0)",
    ):
        shell.run_cell(code, store_history=True)
    for code in ("1 / 0", "x = = 3", "x"):
        shell.run_cell(code)
    shell.user_ns.clear()
    shell.user_ns.update(begun)
    shell.execution_count = 1
    shell.failure = shell.displayhook.value = shell.last_execution_result = None
    _loops.clear()
    result: Shell = shell
    return result


_loops: list[asyncio.AbstractEventLoop] = []


def run_in_loop(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a cell that awaits, in the one loop that all such cells of the session share."""
    if not _loops or _loops[0].is_closed():
        _loops[:] = [asyncio.new_event_loop()]
    loop = _loops[0]
    task = loop.create_task(coroutine)
    try:
        return loop.run_until_complete(task)
    except KeyboardInterrupt:
        task.cancel()  # or it would go on beside the next cell
        loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        raise


def open_stdin(text: str) -> None:
    """Make `text` what descriptor 0 and `sys.stdin` read."""
    if text:
        with tempfile.TemporaryFile() as file:
            file.write(text.encode("utf-8", "replace"))
            file.seek(0)
            handle = os.dup(file.fileno())  # the file may itself be 0, where the last cell has closed its input
    else:  # needs no disk, which may be full
        handle = os.open("/dev/null", os.O_RDONLY)
    if handle != 0:
        os.dup2(handle, 0)
        os.close(handle)
    sys.stdin = open(0, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115


def data_bytes() -> int:
    """Private memory in use, as RLIMIT_DATA counts it; 0 where that cannot be read."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmData:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
