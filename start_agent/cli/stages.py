"""How the stages of a recipe stand: a live table where somebody looks, a line for each change where nobody does."""

from __future__ import annotations

import sys
import time

from rich.table import Table
from rich.text import Text

from start_agent.cli.live import LiveView
from start_agent.recipes.stages import Standing, Standings

_STYLES = {"waiting": "dim", "running": "bold", "done": "green", "failed": "bold red"}


class StagesView(LiveView):
    """A listener of ``run_stages``, on stderr. Use it in ``with``."""

    def __init__(self) -> None:
        self._standings: Standings | None = None
        self._said: dict[str, str] = {}
        super().__init__(self._table, per_second=2)

    def hear(self, standings: Standings) -> None:
        """Take the news."""
        self._standings = standings
        for name, standing in standings.stages.items():
            if standing.status != self._said.get(name, "waiting"):
                self._said[name] = standing.status
                if self.live is None:
                    print(f"{name}: {_told(standing)}", file=sys.stderr, flush=True)

    def _table(self) -> Table:
        table = Table("stage", "", "time", "last said", box=None, pad_edge=False)
        if self._standings is not None:
            for name, standing in self._standings.stages.items():
                seconds = standing.seconds
                if standing.status == "running" and standing.began is not None:
                    seconds = time.monotonic() - standing.began
                line = self._standings.last_line(name) if standing.status in ("running", "failed") else ""
                time_text = f"{seconds:.0f} s" if standing.status != "waiting" else ""
                said = Text(line, no_wrap=True, overflow="ellipsis")
                table.add_row(name, Text(standing.status, _STYLES[standing.status]), time_text, said)
        return table


def _told(standing: Standing) -> str:
    match standing.status:
        case "done" if standing.earlier:
            return "done before"
        case "done":
            return f"done in {standing.seconds:.0f} s"
        case "running":
            return f"$ {standing.stage.shown}"
    return standing.status
