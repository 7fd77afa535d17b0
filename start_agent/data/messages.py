"""Converts a trace to chat messages, for reading and for tools that need them.

Messages are never trained on: chat templates change and delete text, and only the ids are what the model saw. The
format is TRL's: an assistant message has its thinking in ``reasoning_content`` and its code as a tool call, a message
with the role ``tool`` has the output, and ``TOOLS`` describes the only tool.
"""

from __future__ import annotations

from typing import Any

from start_agent.data.views import TraceView
from start_agent.tokens.conversations import arranged
from start_agent.trace import SpanKind

PYTHON = "python"

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": PYTHON,
            "description": "Run Python in a notebook's kernel. Variables stay; what is printed comes back.",
            "parameters": {
                "type": "object",
                "properties": {"code": {"type": "string", "description": "the cell to run"}},
                "required": ["code"],
            },
        },
    }
]
"""The ``tools`` column."""


def messages(view: TraceView, *, hints: bool = True) -> list[dict[str, Any]]:
    """The conversation of a trace.

    Args:
        view: a view of the trace.
        hints: whether the sentences of hints are included in the thinking; False if hints are dropped.
    """
    found = _asked(view)
    at = 0
    for cell in view.cells:
        thinking = _thinking(view, at, cell.fence, hints).strip()
        call = {"type": "function", "function": {"name": PYTHON, "arguments": {"code": cell.code}}}
        found.append({"role": "assistant", "reasoning_content": thinking, "content": "", "tool_calls": [call]})
        output = view.tokenizer.decode(view.trace.spans[cell.output].token_ids)
        found.append({"role": "tool", "name": PYTHON, "content": view.dialect.text_in(output)})
        at = view.ends(cell.output)
    thinking, answer = "", at
    if view.answer_begins is not None and view.thinking_ends is not None:
        end = max(at, view.thinking_ends)
        thinking, answer = _thinking(view, at, end, hints).strip(), max(at, view.answer_begins)
    said = view.string(answer, view.end_of_text).strip()
    found.append({"role": "assistant", "reasoning_content": thinking, "content": said})
    return found


def _asked(view: TraceView) -> list[dict[str, Any]]:
    """The messages before the model's, without the text of the chat template."""
    meta = view.trace.meta
    messages = meta.get("messages", [{"role": "user", "content": meta.get("question", "")}])
    system, instruction = meta.get("system", ""), meta.get("instruction", "")
    return [*arranged(messages, system=system, instruction=instruction, developer=True)]


def _thinking(view: TraceView, begin: int, end: int, hints: bool) -> str:
    """The text from one byte offset to another; without ``hints``, only the opening of code of each hint."""
    opening = view.dialect.opening
    parts: list[str] = []
    for at, span in enumerate(view.trace.spans):
        part = view.string(max(begin, view.begins[at]), max(begin, min(end, view.ends(at))))
        if span.kind is SpanKind.HINT and not hints:
            fence = "" if not parts or parts[-1].endswith("\n") else "\n"
            part = fence + opening if opening in part else ""
        parts.append(part)
    return "".join(parts)
