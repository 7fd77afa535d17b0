"""Shows the traces of a question on a terminal: streams one at a time, and prints one line for each of the others."""

from __future__ import annotations

from contextlib import aclosing

from rich.console import Console
from rich.text import Text

from start_agent.cli.render import TerminalListener, verdict
from start_agent.decoding.events import TraceFinished
from start_agent.decoding.solver import Solver
from start_agent.strategies.base import Solution, counts_of
from start_agent.trace import Trace


class TracesView:
    """Generates traces for a strategy (``solve`` is a ``Solve``), and shows them.

    Args:
        console: the output.
        solver: generates the traces.
        several: whether there may be several traces; then they are numbered, and the answer has a line of its own.
    """

    def __init__(self, console: Console, solver: Solver, *, several: bool) -> None:
        self._console, self._solver, self._several = console, solver, several
        self._begun = 0
        self._streaming = False
        self._waiting: list[Text] = []  # lines of traces that ended while another was streamed

    async def solve(self, question: str, *, seed: int | None = 0) -> Trace:
        """Generate a trace. Raises what ``Solver.stream`` raises."""
        self._begun += 1
        title = f"trace {self._begun}"
        if self._streaming:
            trace = await self._solver.solve(question, seed=seed)
            line = Text(f"{title}: ", style="bold") + verdict(trace)
            if self._streaming:
                self._waiting.append(line)
            else:
                self._console.print(line)
            return trace
        self._streaming = True
        try:
            if self._several:
                self._console.rule(title, align="left")
            return await self._stream(question, seed)
        finally:
            self._streaming = False
            while self._waiting:
                self._console.print(self._waiting.pop(0))

    async def _stream(self, question: str, seed: int | None) -> Trace:
        listener = TerminalListener(self._console, self._solver.engine.tokenizer.eos_ids)
        async with aclosing(self._solver.stream(question, seed=seed)) as events:
            async for event in events:
                listener.on_event(event)
                if isinstance(event, TraceFinished):
                    return event.trace
        raise AssertionError("a stream ended without a trace")

    def on_solution(self, solution: Solution) -> None:
        """Show the votes and the answer, if there may be several traces."""
        if not self._several:
            return
        self._console.rule(style="dim")
        if solution.tally:
            shown = ", ".join(f"{value} ({count})" for value, count in solution.tally.items())
            abstained = sum(vote is None for vote in solution.votes)
            self._console.print(
                Text("votes: ", style="bold") + Text(shown + (f", {abstained} without an answer" if abstained else ""))
            )
        answer = solution.answer
        shown_answer = Text("no answer", style="bold red") if answer is None else Text(answer, style="bold green")
        facts = f"  (traces: {len(solution.traces)}, tokens: {counts_of(*solution.traces)['tokens']})"
        self._console.print(Text("answer: ", style="bold") + shown_answer + Text(facts, style="dim"))
