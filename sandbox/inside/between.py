"""What a cell may leave behind that would hurt the kernel between cells: timers, handlers, tracers, used up limits.

And builtins that it has replaced, which IPython needs to run the next cell.
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
"""Kept in reserve for the kernel, above what code may open."""

_FEWEST_FRAMES = 500  # of recursion: IPython takes some forty
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_SIGNALS = tuple(
    number
    for number in range(1, signal.NSIG)
    if number in signal.valid_signals() and number not in (signal.SIGINT, signal.SIGKILL, signal.SIGSTOP)
)
_RESERVED = (resource.RLIMIT_DATA, resource.RLIMIT_NOFILE)
_SPARE = 0.1  # of its memory that must be left for the next cell

# Held, since code may put others in their places.
_stop_watchdog = faulthandler.cancel_dump_traceback_later
_monitoring: Any = getattr(sys, "monitoring", None)
_TOOLS = range(6) if _monitoring else ()  # that may watch what runs, from Python 3.12 on
_MISSING = object()


class Between:
    """Keeps what belongs to the code away while no cell runs, and gives it back to the next.

    Made in the kernel's process before any code has run.
    """

    def __init__(self) -> None:
        self._handlers = {number: _signal.getsignal(number) for number in _SIGNALS}
        self._codes: dict[int, Any] = {}
        self._soft: dict[int, int] = {}
        self._hard = {name: resource.getrlimit(name)[1] for name in _RESERVED}
        self.use_reserve()

    def begin(self) -> None:
        """A cell begins: handlers and limits are as the last one left them."""
        self._return_reserve()
        for number, handler in self._codes.items():
            signal.signal(number, handler)
        self._codes.clear()
        if blocked := _signal.pthread_sigmask(signal.SIG_SETMASK, ()):  # or SIGINT might be, and none be interrupted
            _signal.pthread_sigmask(signal.SIG_SETMASK, blocked - {signal.SIGINT})

    def end(self) -> None:
        """A cell is over, whatever came of it."""
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
        """Let the process have the descriptors and the memory that are kept for the kernel."""
        for name in _RESERVED:
            before = self._set_soft(name, self._hard[name])
            if before != self._hard[name]:
                self._soft[name] = before

    def _return_reserve(self) -> None:
        for name, soft in self._soft.items():
            self._set_soft(name, soft)
        self._soft.clear()

    def _set_soft(self, name: int, soft: int) -> int:
        """Set a soft limit, or the hard one if that is lower by now. Returns what it was. One system call as a rule."""
        try:
            return resource.prlimit(0, name, (soft, self._hard[name]))[0]
        except PermissionError:  # code has lowered the hard one
            before, hard = resource.getrlimit(name)
            self._hard[name] = hard
            resource.setrlimit(name, (soft if 0 <= soft < hard else hard, hard))  # infinity is less than 0
            return before

    def is_exhausted(self, memory: int) -> bool:
        """Whether too little of the memory that code may have is left for another cell.

        Args:
            memory: how much it may have, in bytes.
        """
        self._return_reserve()
        try:
            # Private and writable, so that it counts; nothing is written.
            mmap.mmap(-1, max(mmap.PAGESIZE, int(memory * _SPARE)), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
        except (OSError, MemoryError, ValueError):
            return True
        finally:
            self.use_reserve()
        return False


class Builtins:
    """Keeps builtins that the code has replaced for the code, while what runs it has Python's own.

    To look at all of them takes too long for every cell: it is done for those that name them or fail.
    """

    def __init__(self) -> None:
        self._there = vars(builtins)
        self._first: dict[str, Any] = {}
        self._codes: dict[str, Any] = {}
        self._given = False
        self.within = 0  # code that code has run
        self.named = False  # by the cell that runs

    def hold(self) -> None:
        """Those there are, are what is to run the code."""
        self._first = dict(self._there)

    def give(self) -> None:
        """The code begins: they are as the last cell left them."""
        self.within += 1
        if self.within == 1:
            self._given = True
            for name, value in self._codes.items():
                if value is _MISSING:
                    self._there.pop(name, None)
                else:
                    self._there[name] = value

    def end(self) -> None:
        """The code that was begun last is over."""
        self.within -= 1
        if not self.within and (self.named or self._codes):
            self.take()

    def take(self) -> None:
        """No code runs any more."""
        changed = {}
        for name, value in self._first.items():
            if (now := self._there.get(name, _MISSING)) is not value:
                changed[name] = now
                self._there[name] = value
        if self._given:
            self._codes.clear()
        self._codes.update(changed)
        self._given, self.within = False, 0
