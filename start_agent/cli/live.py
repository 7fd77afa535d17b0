"""Live views on stderr, shown only on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live

PLAIN_EVERY = 10.0
"""Seconds between progress lines when stderr is not a terminal."""

_PIPED_WIDTH = 120


def tables_console() -> Console:
    """A console for tables on standard output: as wide as the terminal, or a fixed width for a file or a pipe."""
    return Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH, highlight=False)


class LiveView:
    """A view that is redrawn a few times per second on a terminal, and not shown elsewhere. Use it in ``with``.

    Args:
        draw: returns the current content.
        per_second: the number of redraws per second.
        transient: whether it disappears at the end.
    """

    def __init__(self, draw: Callable[[], RenderableType], *, per_second: float, transient: bool = False) -> None:
        console = Console(stderr=True, highlight=False)
        self.live = (
            Live(console=console, refresh_per_second=per_second, get_renderable=draw, transient=transient)
            if console.is_terminal
            else None
        )

    def __enter__(self) -> Self:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.live is not None:
            self.live.stop()
