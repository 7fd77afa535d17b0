"""Shows the progress of a run: a live line on a terminal, otherwise a plain line every few seconds."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from sandbox import BaseSandbox
from start_agent.analysis.stats import wilson_interval
from start_agent.batch.progress import Progress
from start_agent.cli.live import PLAIN_EVERY, LiveView


class ProgressBar(LiveView):
    """A listener of ``run_batch`` that shows the progress on stderr. Use it in ``with``.

    Args:
        total: the number of traces (or the most), if it is known.
        sandbox: the sandbox whose queue is shown.
    """

    def __init__(self, total: int | None, sandbox: BaseSandbox | None = None) -> None:
        self._total, self._sandbox = total, sandbox
        self._progress = Progress()
        self._printed = time.perf_counter()  # when the last plain line was printed
        super().__init__(self._text, per_second=4, transient=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)
        if self._progress.done or self._progress.faults:
            print(self._text(), file=sys.stderr, flush=True)

    def on_progress(self, progress: Progress) -> None:
        """Update the progress."""
        self._progress = progress
        now = time.perf_counter()
        if self.live is None and now - self._printed >= PLAIN_EVERY:
            self._printed = now
            print(self._text(), file=sys.stderr, flush=True)

    def _text(self) -> str:
        progress = self._progress
        seconds = max(progress.seconds, 1e-9)
        done = progress.stored + progress.done
        parts = [f"{done} done" if self._total is None else f"{done}/{self._total} done"]
        if progress.done:
            low, high = wilson_interval(progress.right, progress.done)
            # Only of this start; the summary has all traces.
            parts.append(f"correct {progress.right / progress.done:.1%} ({low:.1%} to {high:.1%})")
        parts.append(f"{progress.tokens / seconds:,.0f} tokens/s")
        parts.append(f"{progress.tool_calls} tool calls")
        if progress.in_flight:
            waiting = 0 if self._sandbox is None else min(self._sandbox.stats.waiting, progress.in_kernel)
            line = f", {waiting} waiting for a kernel" if waiting else ""
            parts.append(f"{progress.in_engine} in the engine, {progress.in_kernel - waiting} in kernels{line}")
        parts.append(f"kernel wait {progress.wait_seconds / max(progress.tool_calls, 1):.2f} s/call")
        parts.append(f"engine idle {progress.idle_seconds / seconds:.0%}")
        if progress.faults:
            faults = ", ".join(f"{name} {count}" for name, count in progress.faults.most_common())
            parts.append(f"errors: {faults}; traces failed: {progress.failed}; last: {progress.last_fault}")
        parts.append(f"{seconds:.0f} s")
        return " | ".join(parts)
