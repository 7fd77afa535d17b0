"""Protects the kernel between cells from what a cell leaves behind: timers, handlers, tracers, exhausted limits.

Also restores builtins that a cell has replaced, since IPython needs them to run the next cell.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what `signal` wraps in enums, which takes ten times as long
import builtins
import faulthandler
import mmap
import resource
import signal
import sys
import threading
from sys import getrecursionlimit, setprofile, setrecursionlimit, settrace
from typing import Any

DESCRIPTORS = 8
"""Descriptors reserved for the kernel, above what code may open."""

_FEWEST_FRAMES = 500  # minimum recursion limit: IPython needs about forty
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_SIGNALS = tuple(
    number
    for number in range(1, signal.NSIG)
    if number in signal.valid_signals() and number not in (signal.SIGINT, signal.SIGKILL, signal.SIGSTOP)
)
_RESERVED = (resource.RLIMIT_DATA, resource.RLIMIT_NOFILE)
_SPARE = 0.1  # share of the memory limit that must be free for the next cell

# Saved here because code may replace them.
_stop_watchdog = faulthandler.cancel_dump_traceback_later
_monitoring: Any = getattr(sys, "monitoring", None)
_TOOLS = range(6) if _monitoring else ()  # tool ids of sys.monitoring, from Python 3.12 on
_MISSING = object()


class Between:
    """Suspends the code's signal handlers and limits while no cell runs, and restores them for the next cell.

    Made in the kernel's process before any code has run.
    """

    def __init__(self) -> None:
        self._handlers = {number: _signal.getsignal(number) for number in _SIGNALS}
        self._codes: dict[int, Any] = {}
        self._soft: dict[int, int] = {}
        self._hard = {name: resource.getrlimit(name)[1] for name in _RESERVED}
        self.use_reserve()

    def begin(self) -> None:
        """Start a cell: restore handlers and limits as the last one left them."""
        self._return_reserve()
        for number, handler in self._codes.items():
            signal.signal(number, handler)
        self._codes.clear()
        if blocked := _signal.pthread_sigmask(signal.SIG_SETMASK, ()):  # SIGINT must not stay blocked
            _signal.pthread_sigmask(signal.SIG_SETMASK, blocked - {signal.SIGINT})

    def end(self) -> None:
        """End a cell, whatever its result."""
        settrace(None)
        setprofile(None)
        threading.settrace(None)
        threading.setprofile(None)
        for tool in _TOOLS:
            if _monitoring.get_tool(tool) is not None:
                _monitoring.set_events(tool, 0)
        _stop_watchdog()
        for timer in _TIMERS:
            signal.setitimer(timer, 0)
        for number, handler in self._handlers.items():
            if (code := _signal.getsignal(number)) is not handler and code is not None:
                self._codes[number] = code
                signal.signal(number, handler)
        if getrecursionlimit() < _FEWEST_FRAMES:
            setrecursionlimit(_FEWEST_FRAMES)
        self.use_reserve()

    def use_reserve(self) -> None:
        """Raise the soft limits so that the kernel can use its reserve of descriptors and memory."""
        for name in _RESERVED:
            before = self._set_soft(name, self._hard[name])
            if before != self._hard[name]:
                self._soft[name] = before

    def _return_reserve(self) -> None:
        for name, soft in self._soft.items():
            self._set_soft(name, soft)
        self._soft.clear()

    def _set_soft(self, name: int, soft: int) -> int:
        """Set a soft limit, at most to the hard limit. Returns the old value. Usually one system call."""
        try:
            return resource.prlimit(0, name, (soft, self._hard[name]))[0]
        except PermissionError:  # code has lowered the hard limit
            before, hard = resource.getrlimit(name)
            self._hard[name] = hard
            resource.setrlimit(name, (soft if 0 <= soft < hard else hard, hard))  # infinity is less than 0
            return before

    def is_exhausted(self, memory: int) -> bool:
        """Whether too little memory is left for another cell.

        Args:
            memory: the memory limit of the code, in bytes.
        """
        self._return_reserve()
        try:
            # Private and writable memory counts towards the limit, even if nothing is written.
            mmap.mmap(-1, max(mmap.PAGESIZE, int(memory * _SPARE)), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
        except (OSError, MemoryError, ValueError):
            return True
        finally:
            self.use_reserve()
        return False


class Builtins:
    """Swaps builtins, so that code sees its own replacements while the shell that runs it uses Python's.

    Comparing all of them would be too slow for every cell: it is done for cells that mention `builtins` or fail.
    """

    def __init__(self) -> None:
        self._there = vars(builtins)
        self._first: dict[str, Any] = {}
        self._codes: dict[str, Any] = {}
        self._given = False
        self.within = 0  # nesting depth of running code
        self.named = False  # whether the running cell mentions `builtins`

    def hold(self) -> None:
        """Save the present builtins as those of the shell."""
        self._first = dict(self._there)

    def give(self) -> None:
        """Code begins: install the builtins as the last cell left them."""
        self.within += 1
        if self.within == 1:
            self._given = True
            for name, value in self._codes.items():
                if value is _MISSING:
                    self._there.pop(name, None)
                else:
                    self._there[name] = value

    def end(self) -> None:
        """The innermost running code has ended."""
        self.within -= 1
        if not self.within and (self.named or self._codes):
            self.take()

    def take(self) -> None:
        """No code runs any more: restore the builtins of the shell."""
        changed = {}
        for name, value in self._first.items():
            if (now := self._there.get(name, _MISSING)) is not value:
                changed[name] = now
                self._there[name] = value
        if self._given:
            self._codes.clear()
        self._codes.update(changed)
        self._given, self.within = False, 0
