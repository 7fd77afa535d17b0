"""Which threads belong to earlier cells: what they print is no part of the running cell's output."""

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
    """The threads that were there when the running cell began, and those that these have started since.

    A worker of `concurrent.futures` belongs to the cell that has given it the task at which it is. Those of
    `multiprocessing.pool` cannot be told apart.
    """

    def __init__(self) -> None:
        self._cell = 0
        self._threads: set[threading.Thread | int] = set()  # numbers of those that `threading` knows nothing of

    def begin(self) -> None:
        """A cell begins: all threads there are, are of earlier ones."""
        self._cell += 1
        self._threads = set()
        running = _current_frames()
        if len(running) > 1:
            known = set(threading.enumerate())
            self._threads.update(running.keys() - {thread.ident for thread in known})
            self._threads.update(thread for thread in known if type(thread).__name__ != "DummyProcess")
            self._threads.discard(threading.main_thread())

    def has_current(self) -> bool:
        """Whether the thread that calls this is one of them."""
        if not self._threads:
            return False
        thread = threading.current_thread()
        return thread in self._threads or (type(thread) is threading._DummyThread and thread.ident in self._threads)

    def follow(self) -> None:
        """From here on, know of threads and tasks by whom they are started."""
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
                change(_thread.get_ident())  # the number of an earlier one that has ended, perhaps
                function(*args, **kwargs)

            return start_raw(begin if callable(function) else function, *args)

        _thread.start_new_thread = _thread.start_new = start_raw_of
        thread_class: Any = threading.Thread
        thread_class.start, task.__init__, task.run = start_of, make_of, run_of
