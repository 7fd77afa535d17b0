"""Shows the stages of a recipe: a live table on a terminal, otherwise a line for each change."""

from __future__ import annotations

import sys
import time

from rich.table import Table
from rich.text import Text

from start_agent.cli.live import LiveView
from start_agent.recipes.stages import StageState, StageStates

_STYLES = {"waiting": "dim", "running": "bold", "done": "green", "failed": "bold red"}


class StagesView(LiveView):
    """A listener of ``run_stages`` that shows the stages on stderr. Use it in ``with``."""

    def __init__(self) -> None:
        self._states: StageStates | None = None
        self._shown: dict[str, str] = {}
        super().__init__(self._table, per_second=2)

    def on_progress(self, states: StageStates) -> None:
        """Update the stages."""
        self._states = states
        for name, state in states.stages.items():
            if state.status != self._shown.get(name, "waiting"):
                self._shown[name] = state.status
                if self.live is None:
                    print(f"{name}: {_described(state)}", file=sys.stderr, flush=True)

    def _table(self) -> Table:
        table = Table("stage", "", "time", "last output", box=None, pad_edge=False)
        if self._states is not None:
            for name, state in self._states.stages.items():
                seconds = state.seconds
                if state.status == "running" and state.began is not None:
                    seconds = time.monotonic() - state.began
                line = self._states.last_line(name) if state.status in ("running", "failed") else ""
                time_text = f"{seconds:.0f} s" if state.status != "waiting" else ""
                output = Text(line, no_wrap=True, overflow="ellipsis")
                table.add_row(name, Text(state.status, _STYLES[state.status]), time_text, output)
        return table


def _described(state: StageState) -> str:
    match state.status:
        case "done" if state.earlier:
            return "already done"
        case "done":
            return f"done in {state.seconds:.0f} s"
        case "running":
            return f"$ {state.stage.shown}"
    return state.status
