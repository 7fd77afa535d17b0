"""IPython's shell, adapted for a model: short errors, values as text, no history of output.

It is built once, in the zygote (`build`), and inherited by forks.
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import nullcontext, suppress
from typing import Any

from ipykernel.compiler import XCachingCompiler
from ipykernel.displayhook import ZMQShellDisplayHook
from ipykernel.zmqshell import ZMQInteractiveShell
from IPython.core.error import UsageError
from IPython.core.interactiveshell import ExecutionResult

from . import libraries, loops, requests, seeds, streams
from .between import Between, Builtins
from .cut import cut_middle, most_chars
from .images import images
from .shortcuts import History, TextFormatter, is_plain, may_await
from .text import CellOutput, PrintedTooMuch, overflow
from .tracebacks import Tracebacks, exit_status, name_of

_libc = ctypes.CDLL(None)
NO_RESULT: Any = ExecutionResult(None)  # type: ignore[no-untyped-call]  # IPython's
code_builtins = Builtins()


class Compiler(XCachingCompiler):
    """Names cells by their number in the session."""

    cell = 1

    def get_code_name(self, raw_code: str, code: str, number: int) -> str:
        """The file name of a cell in tracebacks."""
        return f"<cell {Compiler.cell}>"


class DisplayHook(ZMQShellDisplayHook):
    """Keeps the last expression's value as text, for the reply."""

    value: str | None = None
    shell: Any

    def write_output_prompt(self) -> None:
        """Nothing: there is no prompt."""

    def write_format_data(self, format_dict: dict[str, Any], md_dict: Any = None) -> None:
        """Keep the text, if it is a string: classes of the code may return something else."""
        value = format_dict.get("text/plain")
        self.value = str.__str__(value) if isinstance(value, str) else None
        if images.wanted:
            images.add_bundle(format_dict)

    def log_output(self, format_dict: dict[str, Any]) -> None:
        """Nothing: there is no log."""

    def quiet(self) -> bool:
        """Whether the cell ends in a semicolon."""
        parsed = self.shell.history_manager.input_hist_parsed
        base: Any = super()
        return ";" in parsed[-1] and bool(base.quiet())

    def finish_displayhook(self) -> None:
        """Nothing is sent here: the value is part of the reply."""
        self._is_active = False


class Shell(ZMQInteractiveShell):
    """One session's shell. `settings` and `open_output` are set after the fork."""

    displayhook_class = DisplayHook
    _tee: Any = staticmethod(lambda channel: nullcontext())  # no history of output
    system = ZMQInteractiveShell.system_raw  # `!command` without a terminal, which would change line ends
    failure: tuple[str, str] | None = None
    failed: BaseException | None = None  # the exception of `failure`
    exits = False  # whether `sys.exit()` counts as success
    settings: dict[str, Any]
    output: CellOutput
    _prepared: streams.Prepared | None = None
    between: Between
    tracebacks: Tracebacks
    detail_level = 0  # of what `name?` shows
    displayhook: Any
    profile_dir: Any
    payload_manager: Any
    run_cell: Any

    def open_output(self, settings: dict[str, Any]) -> CellOutput:
        """Create the output of cells, and set the limits of their images. Called once, in the forked process."""
        self.settings = settings
        images.limit(settings["images"], settings["image_bytes"])
        self.between = Between()
        self.tracebacks = Tracebacks((settings["home"], settings["temporary"]))
        self._importers = frozenset(path for path in sys.path_importer_cache if not self._may_hold_modules(path))
        self.home_dir = settings["home"]
        self.user_ns["_dh"][:] = [settings["home"]]
        # Where `%cd` keeps its history. Bypasses its observer, which refuses to change the location.
        self.profile_dir._trait_values["location"] = f"{settings['home']}/.ipython/profile_default"
        self.output = CellOutput(settings["output_chars"] // 2, settings["printed_chars"])
        self.output.earlier.follow()
        streams.open_output(self.output)
        return self.output

    def run(
        self, code: str, cell: int, stdin: requests.Data, seed: int | None, files: tuple[int, int] | None = None
    ) -> dict[str, Any]:
        """Run one cell.

        Args:
            code: source of the cell.
            cell: number of the cell.
            stdin: its standard input.
            seed: seed of the random numbers; None to continue with the present generators.
            files: descriptors for its standard output and error; None for `output`.

        Returns:
            How it ended: `outcome`, a name of `wire.ENDINGS`; `error` and `value`, texts or None; `cut`, whether
            anything is missing from these; `exhausted`, whether too little memory is left for another cell; `status`,
            the exit status of a program that ends like this, and `exits`, whether it ended by `sys.exit`, which prints
            no error.
        """
        Compiler.cell = cell
        self.failure = self.failed = self.displayhook.value = None
        try:
            prepared, self._prepared = self._prepared, None
            own = streams.open_files(*files) if files else streams.open_output(self.output, prepared)
            streams.open_input(stdin, prepared)
            if seed is not None:
                seeds.apply(seed)
            self._invalidate_import_caches()
            loops.begin()
        except Exception as failure:  # caused by earlier cells, e.g. no thread can be started
            self._fail(failure)
        else:
            self._run(code, own)
        outcome, error = self.failure or ("ok", None)
        exits = isinstance(self.failed, SystemExit)
        reply: dict[str, Any] = {"outcome": outcome, "cut": False, "status": exit_status(self.failed), "exits": exits}
        for name, text in (("error", error), ("value", self.displayhook.value)):
            reply[name], was_cut = (None, False) if text is None else self._shorten(text)
            reply["cut"] |= was_cut
        if self.payload_manager.read_payload():
            self.payload_manager.clear_payload()
        self.failure = self.failed = None
        self.last_execution_result = NO_RESULT
        if outcome == "memory":
            # With too little memory left for the next cell, the host should start a fresh kernel.
            reply["exhausted"] = self.between.is_exhausted(self.settings["memory_bytes"])
        return reply

    def _run(self, code: str, own: list[Any]) -> None:
        """Run the code, and set `failure` if it failed. Raises no exception of the code."""
        code_builtins.named = "builtins" in code
        try:
            self.between.begin()
            try:
                result = self.run_cell(code, store_history=True)
                raised = result.error_in_exec
                if raised is None:  # `or` would call `__bool__` of the code's exception
                    raised = result.error_before_exec
                # IPython shows no error when a debugger was quit, or when showing the error failed.
                if raised is not None and raised is not self.failed:
                    self._fail(raised)
                loops.turn()
                libraries.end_figures()
                _flush(own)
            finally:
                self.end()
        except BaseException as error:  # raised by IPython itself (e.g. too deeply nested code) or by flushing
            code_builtins.take()
            self.end()
            if self.failure is None:
                self._fail(error)

    def prepare(self) -> None:
        """Prepare the streams of the next cell while the host reads the last result. If it fails, the cell does it."""
        with suppress(Exception):  # e.g. no memory or descriptor is left
            self._prepared = streams.Prepared(self.output)

    def end(self) -> None:
        """End a cell, whatever its result. Safe to call again."""
        if self.failed is not None or code_builtins.within or code_builtins.named:
            code_builtins.take()
        self.between.end()

    def _fail(self, error: BaseException) -> None:
        """Record that the cell has failed, even if the error cannot be converted to text."""
        kind = type(error)
        if self.exits and issubclass(kind, SystemExit) and exit_status(error) == 0:
            return
        self.failed = error
        outcome = "error"
        if issubclass(kind, MemoryError):
            outcome = "memory"
            self.between.use_reserve()
        elif issubclass(kind, PrintedTooMuch):
            self.failure = ("output", overflow(self.settings["printed_chars"]))
            return
        self.failure = (outcome, name_of(kind))
        try:
            text = f"UsageError: {error}" if kind is UsageError else self.tracebacks.compact(error)
        except BaseException:
            pass
        else:
            self.failure = (outcome, text)

    def init_history(self) -> None:
        """Use a history in memory."""
        history: Any = History(shell=self, parent=self)
        self.history_manager = history
        self.configurables.append(history)

    def init_display_formatter(self) -> None:
        """Format values as plain text only."""
        self.display_formatter = TextFormatter(parent=self)

    def transform_cell(self, raw_cell: str) -> str:
        """The cell as Python code, which it usually is already."""
        if not self.input_transformers_post and is_plain(raw_cell, self.magics_manager.magics["line"]):
            return raw_cell if raw_cell.endswith("\n") else f"{raw_cell}\n"
        base: Any = super()
        return str(base.transform_cell(raw_cell))

    def should_run_async(self, raw_cell: str, **options: Any) -> bool:
        """Whether the cell needs an event loop."""
        return may_await(options.get("transformed_cell") or raw_cell) and super().should_run_async(raw_cell, **options)

    def showtraceback(self, exc_tuple: Any = None, *args: Any, **kwargs: Any) -> None:
        """Keep a compact traceback for the reply instead of printing one."""
        error = (exc_tuple or sys.exc_info())[1]
        if error is None:  # `%tb`
            self.failure = ("error", "UsageError: no traceback is kept")
        else:
            self._fail(error)

    def showsyntaxerror(self, *args: Any, **kwargs: Any) -> None:
        """As for other errors."""
        self.showtraceback()

    def showindentationerror(self) -> None:
        """As for other errors."""
        self.showtraceback()

    def enable_gui(self, gui: str | None = None) -> None:
        """Nothing: there are no windows. Called by `%matplotlib`."""

    def _inspect(self, meth: str, oname: str, namespaces: Any = None, **options: Any) -> Any:
        self.detail_level = options.get("detail_level", 0)
        return super()._inspect(meth, oname, namespaces, **options)

    def publish(self, data: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        """Display a value: print its text, and keep its image if images are requested."""
        sys.stdout.write(data.get("text/plain", "") + "\n")
        images.add_bundle(data)

    def show_page(self, page: Any, start: int = 0, screen_lines: int = 0) -> None:
        """Print what a pager would show: for `name?` the signature if there is one, for `name??` everything."""
        text = page["text/plain"] if isinstance(page, dict) else str(page)
        if not self.detail_level and text.startswith("Signature:"):
            text = text.partition("\nDocstring:")[0]
        self.detail_level = 0
        sys.stdout.write(text.strip("\n") + "\n")

    def _format_exception_for_storage(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {}

    def _may_hold_modules(self, path: str) -> bool:
        """Whether the code may write to a folder."""
        return f"{path}/".startswith(self.tracebacks.folders)

    def _invalidate_import_caches(self) -> None:
        """Invalidate the import caches of folders in which the code may have written a module."""
        with suppress(Exception):  # the code may have changed the cache
            for path in [*filter(self._may_hold_modules, sys.path_importer_cache.keys() - self._importers)]:
                del sys.path_importer_cache[path]

    def _shorten(self, text: str) -> tuple[str, bool]:
        return cut_middle(text, "", most_chars(self.settings["output_chars"]))


def _flush(own: list[Any]) -> None:
    """Flush streams that the cell has put in place of its own, and those of C."""
    for name in ("stdout", "stderr"):
        with suppress(Exception):  # the code may have put any object there
            if (stream := getattr(sys, name)) not in own:
                stream.flush()
    _libc.fflush(None)
