"""Filters that reject traces as training data: one small pure function per reason.

A filter returns True for a trace that is rejected. Filters are applied in the order of ``FILTERS``, cheap and
disqualifying ones first; a trace is counted under the first that rejects it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from sandbox import Outcome
from sandbox.result import was_cut
from start_agent.data.leakage import HeldOut
from start_agent.data.views import TraceView
from start_agent.tokens.answers import boxes
from start_agent.tokens.ngrams import ngram_hashes
from start_agent.tokens.stopping import Repetition, StopKind
from start_agent.tokens.tokenizer import Tokenizer
from start_agent.trace import SpanKind, Trace, TraceOutcome

UNISOLATED = "none"
"""The ``isolation`` of a sandbox without isolation."""


class FilterOptions(BaseModel):
    """The thresholds of the filters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_failed_cells: int = Field(0, ge=0, description="reject traces with more cells that failed or timed out")
    require_tool: bool = Field(False, description="reject traces without an executed cell")
    require_unhinted: bool = Field(
        False,
        description="reject traces without a cell that the model started by itself: if hints are masked, only "
        "these teach calling Python without a hint",
    )
    repeat_tokens: int = Field(96, ge=1, description="reject traces with a repeated sequence of at least N tokens")
    repeat_times: int = Field(4, ge=2, description="... that occurs at least N times in a row")
    ngram_size: int = Field(20, ge=2, description="length of the counted n-grams, in tokens")
    ngram_share: float = Field(0.4, ge=0, le=1, description="reject traces with a larger share of repeated n-grams")
    line_repeats: int = Field(5, ge=2, description="reject traces with a line that occurs N times, except code")
    line_chars: int = Field(12, ge=1, description="shorter lines may repeat")
    max_length: int = Field(16384, ge=1, description="reject longer traces, in tokens, including the prompt")
    allow_unsafe: bool = Field(False, description="keep traces whose code ran without isolation")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A trace that may be selected, with its record."""

    record: Mapping[str, Any]
    trace: Trace
    tokenizer: Tokenizer
    view: TraceView

    @classmethod
    def of(cls, record: Mapping[str, Any], trace: Trace, tokenizer: Tokenizer) -> Candidate:
        """Build a candidate from a record and its trace, as stored or repaired."""
        return cls(record, trace, tokenizer, TraceView(trace, tokenizer))

    @property
    def key(self) -> str:
        """The key of the record."""
        return str(self.record["key"])

    @property
    def outputs(self) -> list[str]:
        """The outcome of each cell."""
        return [span.cause for span in self.trace.of_kind(SpanKind.TOOL_OUTPUT)]

    @property
    def failed_cells(self) -> int:
        """Number of cells with an outcome other than OK."""
        return sum(outcome != Outcome.OK for outcome in self.outputs)


def faulty(candidate: Candidate, options: FilterOptions) -> bool:
    """Infrastructure fault: unfinished trace, unknown cell outcome, or code block without a result."""
    spans = candidate.trace.spans
    known = {outcome.value for outcome in Outcome} - {Outcome.CELLS.value}
    unanswered = any(
        span.kind is SpanKind.MODEL
        and span.cause == StopKind.CODE_CLOSE
        and (at + 1 == len(spans) or spans[at + 1].kind not in (SpanKind.TOOL_OUTPUT, SpanKind.NOTICE))
        for at, span in enumerate(spans)
    )
    return candidate.trace.outcome is None or unanswered or any(outcome not in known for outcome in candidate.outputs)


def unsafe(candidate: Candidate, options: FilterOptions) -> bool:
    """The code ran without isolation, so that its outputs cannot be trusted."""
    return not options.allow_unsafe and candidate.trace.meta.get("sandbox") == UNISOLATED


def unfinished(candidate: Candidate, options: FilterOptions) -> bool:
    """The trace did not end with an answer: a limit, repetition, or no answer."""
    return candidate.trace.outcome is not TraceOutcome.ANSWERED


def too_long(candidate: Candidate, options: FilterOptions) -> bool:
    """The trace has too many tokens. Traces are never truncated."""
    return candidate.trace.count() > options.max_length


def toolless(candidate: Candidate, options: FilterOptions) -> bool:
    """The trace ran no code although that is required."""
    return options.require_tool and not candidate.outputs


def hinted_only(candidate: Candidate, options: FilterOptions) -> bool:
    """All cells were started by hints although an unhinted one is required."""
    return options.require_unhinted and not candidate.trace.unhinted_tool_calls


def failed_cells(candidate: Candidate, options: FilterOptions) -> bool:
    """Too many cells failed, timed out or died."""
    return candidate.failed_cells > options.max_failed_cells


def truncated_output(candidate: Candidate, options: FilterOptions) -> bool:
    """An output was truncated, or a cell was stopped because it printed too much."""
    if Outcome.OUTPUT in candidate.outputs:
        return True
    return any(was_cut(candidate.tokenizer.decode(s.token_ids)) for s in candidate.trace.of_kind(SpanKind.TOOL_OUTPUT))


def answer_before_code(candidate: Candidate, options: FilterOptions) -> bool:
    """The model boxed its final answer before its first cell, so the code had no influence."""
    view = candidate.view
    if not view.cells or candidate.trace.answer is None:
        return False
    before = view.model_text(0, view.cells[0].fence)
    return any(box.content == candidate.trace.answer for box in boxes(before))


def invented_output(candidate: Candidate, options: FilterOptions) -> bool:
    """The model wrote an output block itself: training on it would teach inventing outputs."""
    block = re.compile(rf"^{re.escape(candidate.view.dialect.output_open.rstrip())}(?!\w)", re.MULTILINE)
    return any(block.search(text) for text in _prose(candidate.view))


def token_loop(candidate: Candidate, options: FilterOptions) -> bool:
    """A sequence of tokens repeats many times in a row in the model's text."""
    rule = Repetition(min_tokens=options.repeat_tokens, min_repeats=options.repeat_times)
    return rule.anywhere(_written(candidate.trace))


def repeated_ngrams(candidate: Candidate, options: FilterOptions) -> bool:
    """Too large a share of the n-grams of the model's text are repetitions."""
    size = options.ngram_size
    hashes = ngram_hashes(_written(candidate.trace), size)
    count = len(hashes)
    if count < 2 * size:  # too few n-grams for a meaningful share
        return False
    return 1 - len(set(hashes.tolist())) / count > options.ngram_share


def repeated_lines(candidate: Candidate, options: FilterOptions) -> bool:
    """A line of prose occurs too often."""
    lines = Counter(line.strip() for text in _prose(candidate.view) for line in text.splitlines())
    return any(
        count >= options.line_repeats and len(line) >= options.line_chars and not line.startswith("```")
        for line, count in lines.items()
    )


Filter = Callable[[Candidate, FilterOptions], bool]

FILTERS: dict[str, Filter] = {
    "infrastructure_fault": faulty,
    "unsafe_sandbox": unsafe,
    "unfinished": unfinished,
    "too_long": too_long,
    "no_tool_call": toolless,
    "no_unhinted_call": hinted_only,
    "failed_cells": failed_cells,
    "truncated_output": truncated_output,
    "answer_before_code": answer_before_code,
    "invented_output": invented_output,
    "token_loop": token_loop,
    "repeated_ngrams": repeated_ngrams,
    "repeated_lines": repeated_lines,
}
"""Filters by name, in the order of application. Leakage, a property of the problem, is checked before all of them."""


def refused_by(candidate: Candidate, options: FilterOptions) -> str | None:
    """The name of the first filter that rejects a trace; None if none does."""
    return next((name for name, refuses in FILTERS.items() if refuses(candidate, options)), None)


def leaked(record: Mapping[str, Any], held_out: HeldOut | None) -> str | None:
    """The kind of duplicate of a held-out problem that a record's problem is; None if it is not a duplicate."""
    if held_out is None:
        return None
    match = held_out.match(str(record["question"]), str(record["problem"]), str(record["gold"] or ""))
    return None if match is None else f"leaked_{match.kind}"


def _prose(view: TraceView) -> list[str]:
    """The model's text outside executed cells."""
    places = [0, *(place for cell in view.cells for place in (cell.fence, cell.end)), len(view.text)]
    return [view.model_text(*pair) for pair in zip(places[::2], places[1::2], strict=True)]


def _written(trace: Trace) -> list[int]:
    return [token_id for span in trace.of_kind(SpanKind.MODEL) for token_id in span.token_ids]
