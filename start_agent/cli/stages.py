"""How the stages of a recipe stand: a live table where somebody looks, a line for each change where nobody does."""

from __future__ import annotations

import sys
import time

from rich.table import Table
from rich.text import Text

from start_agent.cli.live import LiveView
from start_agent.recipes.stages import StageState, StageStates

_STYLES = {"waiting": "dim", "running": "bold", "done": "green", "failed": "bold red"}


class StagesView(LiveView):
    """A listener of ``run_stages``, on stderr. Use it in ``with``."""

    def __init__(self) -> None:
        self._standings: StageStates | None = None
        self._said: dict[str, str] = {}
        super().__init__(self._table, per_second=2)

    def on_progress(self, states: StageStates) -> None:
        """Take the news."""
        self._standings = states
        for name, state in states.stages.items():
            if state.status != self._said.get(name, "waiting"):
                self._said[name] = state.status
                if self.live is None:
                    print(f"{name}: {_told(state)}", file=sys.stderr, flush=True)

    def _table(self) -> Table:
        table = Table("stage", "", "time", "last said", box=None, pad_edge=False)
        if self._standings is not None:
            for name, state in self._standings.stages.items():
                seconds = state.seconds
                if state.status == "running" and state.began is not None:
                    seconds = time.monotonic() - state.began
                line = self._standings.last_line(name) if state.status in ("running", "failed") else ""
                time_text = f"{seconds:.0f} s" if state.status != "waiting" else ""
                said = Text(line, no_wrap=True, overflow="ellipsis")
                table.add_row(name, Text(state.status, _STYLES[state.status]), time_text, said)
        return table


def _told(state: StageState) -> str:
    match state.status:
        case "done" if state.earlier:
            return "done before"
        case "done":
            return f"done in {state.seconds:.0f} s"
        case "running":
            return f"$ {state.stage.shown}"
    return state.status
