"""Builds and warms up the shell that all kernels start with. Building starts no thread and opens no file."""

from __future__ import annotations

import atexit
import ctypes
import logging
import sys
import warnings
from types import CodeType
from typing import Any

from IPython.core import interactiveshell
from traitlets.config import Config

from . import bounds, loops
from .shell import NO_RESULT, Compiler, Shell, code_builtins

_LINE_BUFFERED = 1  # _IOLBF, in glibc and musl
_libc = ctypes.CDLL(None)


def build() -> Shell:
    """Build the shell and run a few cells in it, so that everything that is loaded lazily is loaded."""
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    shell: Any = Shell.instance(config=config, compiler_class=Compiler)
    shell.builtin_trap.__enter__()  # permanently: IPython would enter and leave it for each cell
    code_builtins.hold()
    shell.display_pub.publish = shell.publish
    shell.display_pub.clear_output = lambda *args, **kwargs: None
    shell.loop_runner = loops.run
    interactiveshell.exec, interactiveshell.eval = _exec, _eval  # type: ignore[attr-defined]  # its module's own names
    loops.install()
    bounds.install()
    atexit.unregister(shell.atexit_operations)  # code may run the registered functions and continue
    shell.set_hook("show_in_pager", Shell.show_page, 0)
    sys.set_int_max_str_digits(0)  # no limit needed: the timeout of a cell bounds slow conversions
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # it logs its cache at the first use
    sys.path.insert(0, "")  # for modules that the code writes
    ctypes_stdout = ctypes.c_void_p.in_dll(_libc, "stdout")
    _libc.setvbuf(ctypes_stdout, None, _LINE_BUFFERED, 0)  # or output of C code would follow all output of Python
    for name in ("exit", "quit"):
        shell.user_ns[name] = shell.user_ns_hidden[name] = sys.exit
    shell.user_ns.pop("open", None)  # IPython's refuses open(0), which programs that read stdin use
    # The second comes from tqdm.auto, which takes this for a notebook, the third from `!pip`, the last from numba in
    # tier 3.
    locks = r"\s*Could not obtain multiprocessing lock"
    for message in ("To exit: use", "IProgress not found", "You executed the system command", locks):
        warnings.filterwarnings("ignore", message=message)
    begun, hidden = dict(shell.user_ns), dict(shell.user_ns_hidden)
    for code in (
        "sum(range(10)) / 4.0",
        "x = [1, 'a']\nfor y in x:\n    pass\nx",
        "await __import__('asyncio').sleep(0)",
    ):
        shell.run_cell(code, store_history=True)
    for code in ("1 / 0", "x = = 3", "x"):
        shell.run_cell(code)
    for names, first in ((shell.user_ns, begun), (shell.user_ns_hidden, hidden)):
        names.clear()
        names.update(first)
    shell.user_ns["_oh"].clear()
    shell.history_manager.reset()
    for name in ("_i", "_ii", "_iii", "_i00"):
        setattr(shell.history_manager, name, "")
    shell.displayhook._ = shell.displayhook.__ = shell.displayhook.___ = ""
    shell.execution_count = 1
    shell.failure = shell.failed = shell.displayhook.value = None
    shell.last_execution_result = NO_RESULT
    loops.forget()
    result: Shell = shell
    return result


def _exec(*args: Any) -> None:
    """Replaces `exec` in IPython, to run a part of a cell with the builtins of the code."""
    code_builtins.give()
    try:
        exec(*args)
    finally:
        code_builtins.end()


def _eval(*args: Any) -> Any:
    """Replaces `eval` in IPython, for a part that awaits: it begins here and ends with the cell."""
    if isinstance(args[0], CodeType):
        code_builtins.give()
    return eval(*args)
