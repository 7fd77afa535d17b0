"""A trace as chat messages, for people and for tools that want them. Nothing is ever trained on what stands here:
chat templates change and delete what they are given, and only the ids are what the model saw.

The form is TRL's: an assistant's message has its thinking under ``reasoning_content`` and its code as a tool call,
a message of the role ``tool`` has the output, and ``TOOLS`` describes the one tool there is.
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


def messages(reading: TraceView, *, hints: bool = True) -> list[dict[str, Any]]:
    """The conversation of a trace.

    Args:
        reading: of the trace.
        hints: whether the hints' sentences are part of the thinking; without them, as where they are dropped.
    """
    found = _asked(reading)
    at = 0
    for cell in reading.cells:
        thinking = _thinking(reading, at, cell.fence, hints).strip()
        call = {"type": "function", "function": {"name": PYTHON, "arguments": {"code": cell.code}}}
        found.append({"role": "assistant", "reasoning_content": thinking, "content": "", "tool_calls": [call]})
        output = reading.tokenizer.decode(reading.trace.spans[cell.output].token_ids)
        found.append({"role": "tool", "name": PYTHON, "content": reading.dialect.text_in(output)})
        at = reading.ends(cell.output)
    thinking, answer = "", at
    if reading.answer_begins is not None and reading.thinking_ends is not None:
        end = max(at, reading.thinking_ends)
        thinking, answer = _thinking(reading, at, end, hints).strip(), max(at, reading.answer_begins)
    said = reading.string(answer, reading.end_of_text).strip()
    found.append({"role": "assistant", "reasoning_content": thinking, "content": said})
    return found


def _asked(reading: TraceView) -> list[dict[str, Any]]:
    """The messages before the model's, as they were put; without the template's own text."""
    meta = reading.trace.meta
    messages = meta.get("messages", [{"role": "user", "content": meta.get("question", "")}])
    system, instruction = meta.get("system", ""), meta.get("instruction", "")
    return [*arranged(messages, system=system, instruction=instruction, developer=True)]


def _thinking(reading: TraceView, begin: int, end: int, hints: bool) -> str:
    """The text from one place to another; of the hints, where they are not wanted, what opens the code alone."""
    opening = reading.dialect.opening
    parts: list[str] = []
    for at, span in enumerate(reading.trace.spans):
        part = reading.string(max(begin, reading.begins[at]), max(begin, min(end, reading.ends(at))))
        if span.kind is SpanKind.HINT and not hints:
            fence = "" if not parts or parts[-1].endswith("\n") else "\n"
            part = fence + opening if opening in part else ""
        parts.append(part)
    return "".join(parts)
