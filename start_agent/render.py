"""A trace as HTML, for notebooks and pages, with a colour for each author.

One self-contained fragment with inline styles: no script, no style sheet, nothing loaded. All text from the trace is
escaped, so that hostile text stays text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from html import escape

from start_agent.trace import Decode, Span, SpanKind, Trace

_BACKGROUNDS = {
    SpanKind.PROMPT: "rgba(128,128,128,.15)",
    SpanKind.MODEL: "transparent",
    SpanKind.HINT: "rgba(255,193,7,.35)",
    SpanKind.TOOL_OUTPUT: "rgba(33,150,243,.22)",
    SpanKind.NOTICE: "rgba(244,67,54,.22)",
}
_TEXT = "white-space:pre-wrap;overflow-wrap:anywhere;margin:.4em 0;line-height:1.4"
_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def trace_html(trace: Trace, decode: Decode | None = None) -> str:
    """The trace as an HTML fragment.

    Args:
        trace: a finished or unfinished trace.
        decode: token ids → text; by default the trace's own, or the texts stored with it.

    Raises:
        ValueError: the trace was read from JSON without texts, and there is no ``decode``.
    """
    shown = list(zip(trace.spans, _texts(trace, decode), strict=True))
    prompt = [(span, text) for span, text in shown if span.kind is SpanKind.PROMPT]
    rest = [(span, text) for span, text in shown if span.kind is not SpanKind.PROMPT]
    legend = " ".join(
        f'<span style="background:{_BACKGROUNDS[kind]};padding:0 .4em">{kind.replace("_", " ")}</span>'
        for kind in dict.fromkeys(span.kind for span, _ in rest)
    )
    return (
        f"<div><div>{_facts(trace)}</div><details><summary>prompt, {trace.count(SpanKind.PROMPT)} tokens</summary>"
        f'<pre style="{_TEXT}">{_spans(prompt)}</pre></details>'
        f'<div>{legend}</div><pre style="{_TEXT}">{_spans(rest)}</pre></div>'
    )


def _texts(trace: Trace, decode: Decode | None) -> Iterable[str]:
    decode = decode or trace.decode
    if decode is not None:
        return [decode(span.token_ids) for span in trace.spans]
    if trace.texts is None and trace.spans:
        raise ValueError("the trace has only token ids: pass decode, as in trace_html(trace, tokenizer.decode)")
    return trace.texts or ()


def _spans(shown: Iterable[tuple[Span, str]]) -> str:
    return "".join(
        f'<span title="{_shown(_title(span))}" style="background:{_BACKGROUNDS[span.kind]}">{_shown(text)}</span>'
        for span, text in shown
    )


def _title(span: Span) -> str:
    cause = f" ({span.cause})" if span.cause else ""
    return f"{span.kind.replace('_', ' ')}{cause}, {len(span.token_ids)} tokens"


def _facts(trace: Trace) -> str:
    """Outcome, answer and counts in one line."""
    outcome = "not finished" if trace.outcome is None else trace.outcome.replace("_", " ")
    answer = "no answer" if trace.answer is None else f"answer <b>{_shown(trace.answer)}</b>"
    hints = sum(1 for _ in trace.of_kind(SpanKind.HINT))
    return f"{answer} · {outcome} · {trace.tool_calls} tool calls · {hints} hints · {trace.count()} tokens"


def _shown(text: str) -> str:
    """Escape the text; control characters and bidirectional overrides are written as escape sequences."""
    return escape("".join(char if _harmless(char) else f"\\u{ord(char):04x}" for char in text))


def _harmless(char: str) -> bool:
    return char in "\n\t" or (char not in _DIRECTIONS and unicodedata.category(char) not in ("Cc", "Cs"))
