"""Shows a trace on a terminal: thinking dimmed, hints and notices in colour, code highlighted, outputs in boxes."""

from __future__ import annotations

from collections.abc import Container

from rich.box import ROUNDED
from rich.console import Console
from rich.panel import Panel
from rich.syntax import Syntax
from rich.text import Text

from start_agent.decoding.events import CellFinished, CellStarted, Event, ModelText, SpanAdded, TraceFinished
from start_agent.tokens.phases import Phase
from start_agent.trace import SpanKind, Trace

_STYLES = {Phase.THINKING: "dim", Phase.ANSWERING: ""}


class TerminalListener:
    """Shows a trace while it is generated; without colours if the console is not a terminal."""

    def __init__(self, console: Console, eos_ids: Container[int] = ()) -> None:
        self._console = console
        self._eos_ids = eos_ids
        self._line = ""  # an incomplete line of code
        self._at_start = True  # whether the cursor is at the start of a line

    def on_event(self, event: Event) -> None:
        """Show an event."""
        match event:
            case ModelText(token_ids=(token_id,)) if token_id in self._eos_ids:
                pass
            case ModelText(text=text, phase=Phase.CODE):
                self._code(text)
            case ModelText(text=text, phase=phase):
                self._write(Text(text, style=_STYLES[phase]))
            case SpanAdded(span, text) if span.kind is SpanKind.HINT:
                self._inserted(text, "yellow")
            case SpanAdded(span, text) if span.kind is SpanKind.NOTICE:
                self._inserted(text, "magenta")
            case CellStarted():
                self._flush_code()
            case CellFinished(result):
                self._fresh_line()
                title = "output" if result.outcome == "ok" else f"output: {result.outcome}"
                self._console.print(
                    Panel(Text(result.text), box=ROUNDED, title=title, title_align="left", expand=False)
                )
            case TraceFinished(trace=trace):
                self._flush_code()
                self._fresh_line()
                self._console.print(verdict(trace))

    def _code(self, text: str) -> None:
        """Show complete lines of code, which the highlighter needs."""
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._code_line(line)

    def _code_line(self, line: str) -> None:
        self._fresh_line()
        if line.lstrip().startswith("```"):
            self._console.print(Text(line, style="dim"))
        else:
            highlighted = Syntax("", "python", theme="ansi_dark").highlight(line)
            highlighted.rstrip()
            self._console.print(Text("  ") + highlighted)

    def _flush_code(self) -> None:
        if self._line:
            self._code_line(self._line)
            self._line = ""

    def _inserted(self, text: str, style: str) -> None:
        """Show inserted text in its style, without code fences."""
        shown = "\n".join(line for line in text.split("\n") if not line.startswith("```"))
        self._write(Text(shown, style=style))
        self._fresh_line()

    def _write(self, text: Text) -> None:
        self._flush_code()
        if text.plain:
            self._console.print(text, end="", soft_wrap=True)
            self._at_start = text.plain.endswith("\n")

    def _fresh_line(self) -> None:
        if not self._at_start:
            self._console.print()
            self._at_start = True


def verdict(trace: Trace) -> Text:
    """The answer and the trace's counts, in one line."""
    assert trace.outcome is not None, "the trace is not finished"
    answer = Text("no answer", style="bold red") if trace.answer is None else Text(trace.answer, style="bold green")
    hints = sum(1 for _ in trace.of_kind(SpanKind.HINT))
    facts = f"  ({trace.outcome}; tool calls: {trace.tool_calls}, hints: {hints}, tokens: {trace.count()})"
    return Text("answer: ", style="bold") + answer + Text(facts, style="dim")
