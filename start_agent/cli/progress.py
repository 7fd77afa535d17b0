"""How a run is going: a live line where somebody looks, a plain one now and then where nobody does."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live

from sandbox import BaseSandbox
from start_agent.batch.tally import Tally
from start_agent.stats import wilson_interval

_PLAIN_EVERY = 10.0  # seconds


class Progress:
    """A listener of ``run_batch``, on stderr. Use it in ``with``.

    Args:
        total: traces in all, or at most, where that is known.
        sandbox: its waiting line is shown.
    """

    def __init__(self, total: int | None, sandbox: BaseSandbox | None = None) -> None:
        self._total, self._sandbox = total, sandbox
        self._tally = Tally()
        self._said = time.perf_counter()
        console = Console(stderr=True, highlight=False)
        self._live = (
            Live(console=console, refresh_per_second=4, get_renderable=self._renderable, transient=True)
            if console.is_terminal
            else None
        )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        if self._tally.done or self._tally.faults:
            print(self._text(), file=sys.stderr, flush=True)

    def hear(self, tally: Tally) -> None:
        """Take the news."""
        self._tally = tally
        now = time.perf_counter()
        if self._live is None and now - self._said >= _PLAIN_EVERY:
            self._said = now
            print(self._text(), file=sys.stderr, flush=True)

    def _renderable(self) -> RenderableType:
        return self._text()

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
