"""The host's side of a grading process, which is killed when it does not answer in time."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from start_agent.errors import GradingError, MissingExtraError
from start_agent.grading.verdict import Reason

START_SECONDS = 60.0
"""How long a process may take to start; loading SymPy takes about half a second on an idle machine."""

_PACKAGES = Path(__file__).parents[2]


class Worker:
    """One grading process. Not thread-safe, except for ``kill``, which any thread may call at any time.

    Raises:
        MissingExtraError: Math-Verify is not installed.
        GradingError: the process does not start.
    """

    def __init__(self) -> None:
        # It parses model output, so it must not see the secrets in the host's environment.
        kept = ("PATH", "LANG", "TMPDIR", "LD_LIBRARY_PATH")
        environment = {name: os.environ[name] for name in kept if name in os.environ}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "start_agent.grading.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment | {"PYTHONPATH": str(_PACKAGES), "PYTHONHASHSEED": "0"},
            )
        except OSError as error:
            raise GradingError(f"cannot start a grading process: {error}") from error
        self._rest = b""
        first = self._read(START_SECONDS)
        if isinstance(first, Reason) or "ready" not in first:
            self.close()
            if isinstance(first, dict):
                raise MissingExtraError(str(first.get("missing")).replace("_", "-"), "math")
            raise GradingError(f"a grading process did not start ({first}, exit status {self._process.returncode})")

    def ask(self, pred: str, gold: str, seconds: float) -> dict[str, Any] | Reason:
        """The verdict as a JSON object; without one, TIMEOUT or CRASHED, and the process has been killed."""
        request = {"pred": pred, "gold": gold, "seconds": seconds}
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            answer: dict[str, Any] | Reason = Reason.CRASHED
        else:
            answer = self._read(seconds)
        if isinstance(answer, Reason):
            self.kill()
        return answer

    @property
    def alive(self) -> bool:
        """Whether the process is running."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def kill(self) -> None:
        """Kill the process and wait for its end. May be repeated."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Kill the process and close the pipes; not while ``ask`` is running."""
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # unsent data cannot be flushed any more
                    pipe.close()

    def _read(self, seconds: float) -> dict[str, Any] | Reason:
        """The next message of the process, or TIMEOUT or CRASHED."""
        assert self._process.stdout is not None
        handle = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        deadline = time.monotonic() + seconds
        while b"\n" not in self._rest:
            left = deadline - time.monotonic()
            if left <= 0:
                return Reason.TIMEOUT
            if poll.poll(left * 1000):
                piece = os.read(handle, 1 << 16)
                if not piece:
                    return Reason.CRASHED
                self._rest += piece
        line, self._rest = self._rest.split(b"\n", 1)
        try:
            answer = json.loads(line)
        except ValueError:
            return Reason.CRASHED
        return answer if isinstance(answer, dict) else Reason.CRASHED
