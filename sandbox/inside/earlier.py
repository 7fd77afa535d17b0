"""Tracks threads of earlier cells, whose output is not part of the running cell's output."""

from __future__ import annotations

import _thread
import sys
import threading
from concurrent.futures import thread as pools
from contextlib import suppress
from functools import wraps
from typing import Any

_current_frames = sys._current_frames


class EarlierThreads:
    """The threads that existed when the running cell began, and those that they have started since.

    A worker of `concurrent.futures` belongs to the cell that submitted its current task. Workers of
    `multiprocessing.pool` cannot be assigned to a cell.
    """

    def __init__(self) -> None:
        self._cell = 0
        self._threads: set[threading.Thread | int] = set()  # idents of threads unknown to `threading`

    def begin(self) -> None:
        """A cell begins: all existing threads belong to earlier ones."""
        self._cell += 1
        self._threads = set()
        running = _current_frames()
        if len(running) > 1:
            known = set(threading.enumerate())
            self._threads.update(running.keys() - {thread.ident for thread in known})
            self._threads.update(thread for thread in known if type(thread).__name__ != "DummyProcess")
            self._threads.discard(threading.main_thread())

    def has_current(self) -> bool:
        """Whether the calling thread belongs to an earlier cell."""
        if not self._threads:
            return False
        thread = threading.current_thread()
        return thread in self._threads or (type(thread) is threading._DummyThread and thread.ident in self._threads)

    def follow(self) -> None:
        """Patch `threading` and `concurrent.futures` to track which cell starts threads and tasks."""
        task: Any = pools._WorkItem
        start, make, run = threading.Thread.start, task.__init__, task.run
        start_raw = _thread.start_new_thread

        @wraps(start)
        def start_of(thread: threading.Thread) -> None:
            if self.has_current():
                self._threads.add(thread)
            start(thread)

        @wraps(make)
        def make_of(item: Any, *args: Any, **kwargs: Any) -> None:
            make(item, *args, **kwargs)
            with suppress(AttributeError):
                item.cell = -1 if self.has_current() else self._cell

        @wraps(run)
        def run_of(item: Any, *args: Any) -> None:
            change = self._threads.discard if getattr(item, "cell", -1) == self._cell else self._threads.add
            change(threading.current_thread())
            run(item, *args)

        @wraps(start_raw)
        def start_raw_of(function: Any, *args: Any) -> int:
            change = self._threads.add if self.has_current() else self._threads.discard

            def begin(*args: Any, **kwargs: Any) -> None:
                change(_thread.get_ident())  # idents are reused: it may be recorded for a thread that has ended
                function(*args, **kwargs)

            return start_raw(begin if callable(function) else function, *args)

        _thread.start_new_thread = _thread.start_new = start_raw_of
        thread_class: Any = threading.Thread
        thread_class.start, task.__init__, task.run = start_of, make_of, run_of
