"""What is drawn anew on stderr while something goes on, where somebody looks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live

PLAIN_EVERY = 10.0
"""Seconds between the lines of a progress that nobody watches."""

_PIPED_WIDTH = 120


def tables_console() -> Console:
    """Standard output for tables: as wide as the terminal, or wide enough for them where it is a file or a pipe."""
    return Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH, highlight=False)


class LiveView:
    """A view that is drawn a few times a second on a terminal, and not at all elsewhere. Use it in ``with``.

    Args:
        draw: what is to be seen now.
        per_second: how often it is asked for.
        transient: gone at the end.
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
