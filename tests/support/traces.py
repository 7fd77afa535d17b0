"""Traces written as texts, shared by the tests of training data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from start_agent.batch.store import RunDirectory
from start_agent.data.views import TraceView
from start_agent.tokens.tokenizer import Tokenizer
from start_agent.trace import SCHEMA_VERSION, Span, SpanKind, Trace, TraceOutcome

P, M, H, T, N = SpanKind.PROMPT, SpanKind.MODEL, SpanKind.HINT, SpanKind.TOOL_OUTPUT, SpanKind.NOTICE

Spelled = tuple[SpanKind, str, str]
"""The kind of a span, its text, its cause."""

QUESTION = "What is 6 * 7?"


def output(text: str, cause: str = "ok") -> Spelled:
    return (T, f"```output\n{text}\n```\n", cause)


def spelled(tokenizer: Tokenizer, *spans: Spelled, answer: str | None = "42", **meta: Any) -> Trace:
    """A complete trace that does not say where its answer begins, as of the first schema; a last model span of the
    cause eos ends with the end of sequence."""
    made = [Span(P, tuple(tokenizer.encode(QUESTION + "\n")))]
    for kind, text, cause in spans:
        ids = tokenizer.encode(text)
        if cause == "eos":
            ids = [*ids, min(tokenizer.eos_ids)]
        made.append(Span(kind, tuple(ids), cause))
    outcome = TraceOutcome.NO_ANSWER if answer is None else TraceOutcome.ANSWERED
    return Trace(made, outcome, answer, {"question": QUESTION, "sandbox": "fake", **meta}, schema=1)


def dated(trace: Trace, tokenizer: Tokenizer) -> Trace:
    """The same as of today's schema."""
    reading = TraceView(trace, tokenizer)
    place = None
    if reading.answer_begins is not None:
        edges = list(accumulate(len(tokenizer.bytes_of((token_id,))) for token_id in trace.token_ids))
        prompt = edges[trace.count(P) - 1] if trace.count(P) else 0
        token = next((at for at, edge in enumerate(edges) if edge > prompt + reading.answer_begins), len(edges))
        place = token, prompt + reading.answer_begins - ([0, *edges][token])
    return replace(trace, answer_begins=place, schema=SCHEMA_VERSION)


HINTED: tuple[Spelled, ...] = (
    (M, "Let me see, it is 41.\n\nWait", "connective"),
    (H, ", maybe using Python here is a good idea.\n```python\n", "math.hint.1"),
    (M, "print(6 * 7)\n```\n", "code_close"),
    output("42"),
    (M, "So it is 42. Let me check that again.\n```python\nprint(7 * 6)\n```\n", "code_close"),
    output("42"),
    (M, "Right.\n</think>\n\nThe answer is \\boxed{42}.", "eos"),
)
"""A hinted call, and one that the model makes by itself."""


def record(trace: Trace, key: int = 0, *, problem: str = "p0", correct: bool = True, **fields: Any) -> dict[str, Any]:
    """A record of a run, with the fields that selection reads."""
    made = {
        "key": f"{key:064x}",
        "problem": problem,
        "sample": key,
        "question": QUESTION,
        "gold": "42",
        "answer": trace.answer,
        "correct": correct,
    }
    return made | fields | {"trace": trace.to_json()}


def run(path: Path, records: Iterable[dict[str, Any]]) -> Path:
    """A run directory with these records."""
    with RunDirectory.open(path, {"model": {"model": "pocket"}}) as directory:
        for one in records:
            directory.append(one)
    return path
