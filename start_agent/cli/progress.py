"""How a run is going: a live line where somebody looks, a plain one now and then where nobody does."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from sandbox import BaseSandbox
from start_agent.analysis.stats import wilson_interval
from start_agent.batch.progress import Tally
from start_agent.cli.live import LiveView

_PLAIN_EVERY = 10.0  # seconds


class Progress(LiveView):
    """A listener of ``run_batch``, on stderr. Use it in ``with``.

    Args:
        total: traces in all, or at most, where that is known.
        sandbox: its waiting line is shown.
    """

    def __init__(self, total: int | None, sandbox: BaseSandbox | None = None) -> None:
        self._total, self._sandbox = total, sandbox
        self._tally = Tally()
        self._said = time.perf_counter()
        super().__init__(self._text, per_second=4, transient=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)
        if self._tally.done or self._tally.faults:
            print(self._text(), file=sys.stderr, flush=True)

    def hear(self, tally: Tally) -> None:
        """Take the news."""
        self._tally = tally
        now = time.perf_counter()
        if self.live is None and now - self._said >= _PLAIN_EVERY:
            self._said = now
            print(self._text(), file=sys.stderr, flush=True)

    def _text(self) -> str:
        tally = self._tally
        seconds = max(tally.seconds, 1e-9)
        done = tally.stored + tally.done
        parts = [f"{done} done" if self._total is None else f"{done}/{self._total} done"]
        if tally.done:
            low, high = wilson_interval(tally.right, tally.done)
            # Of this start alone; the summary tells of all.
            parts.append(f"right {tally.right / tally.done:.1%} ({low:.1%} to {high:.1%})")
        parts.append(f"{tally.tokens / seconds:,.0f} tokens/s")
        parts.append(f"{tally.tool_calls} tool calls")
        if tally.in_flight:
            waiting = 0 if self._sandbox is None else min(self._sandbox.stats.waiting, tally.in_kernel)
            line = f", {waiting} wait for a kernel" if waiting else ""
            parts.append(f"{tally.in_engine} in the engine, {tally.in_kernel - waiting} in kernels{line}")
        parts.append(f"kernel wait {tally.wait_seconds / max(tally.tool_calls, 1):.2f} s/call")
        parts.append(f"engine idle {tally.idle_seconds / seconds:.0%}")
        if tally.faults:
            faults = ", ".join(f"{name} {count}" for name, count in tally.faults.most_common())
            parts.append(f"faults: {faults}; given up: {tally.failed}; last: {tally.last_fault}")
        parts.append(f"{seconds:.0f} s")
        return " | ".join(parts)
