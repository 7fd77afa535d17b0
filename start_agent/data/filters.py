"""What makes a trace unfit for training: one small pure function for each reason.

A filter says True of a trace that is refused. They are asked in the order of ``FILTERS``, the cheap and the grave
first; a trace is counted under the first that refuses it.
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
"""What a sandbox calls its isolation where there is none."""


class FilterOptions(BaseModel):
    """The bounds of the filters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_failed_cells: int = Field(0, ge=0, description="refuse a trace with more cells that failed or timed out")
    require_tool: bool = Field(False, description="refuse a trace without a cell that ran")
    require_unhinted: bool = Field(
        False,
        description="refuse a trace without a cell that the model began by itself: under a mask, nothing else "
        "of it teaches calling Python unhinted",
    )
    repeat_tokens: int = Field(96, ge=1, description="refuse a trace in which one run repeats over so many tokens")
    repeat_times: int = Field(4, ge=2, description="... and was said at least so often")
    ngram_size: int = Field(20, ge=2, description="length, in tokens, of the n-grams that are counted")
    ngram_share: float = Field(0.4, ge=0, le=1, description="refuse a trace with a larger share of repeated n-grams")
    line_repeats: int = Field(5, ge=2, description="refuse a trace that says one line so often, code left out")
    line_chars: int = Field(12, ge=1, description="shorter lines may repeat")
    max_length: int = Field(16384, ge=1, description="refuse a longer trace, in tokens, prompt included")
    allow_unsafe: bool = Field(False, description="keep traces whose code ran without isolation")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A trace that may be learned from, with the record that it came in."""

    record: Mapping[str, Any]
    trace: Trace
    tokenizer: Tokenizer
    reading: TraceView

    @classmethod
    def of(cls, record: Mapping[str, Any], trace: Trace, tokenizer: Tokenizer) -> Candidate:
        """The candidate of a record and its trace, as stored or repaired."""
        return cls(record, trace, tokenizer, TraceView(trace, tokenizer))

    @property
    def key(self) -> str:
        """The record's."""
        return str(self.record["key"])

    @property
    def outputs(self) -> list[str]:
        """How each cell went."""
        return [span.cause for span in self.trace.of_kind(SpanKind.TOOL_OUTPUT)]

    @property
    def failed_cells(self) -> int:
        """Cells that did not end well."""
        return sum(outcome != Outcome.OK for outcome in self.outputs)


def faulty(candidate: Candidate, options: FilterOptions) -> bool:
    """The infrastructure failed it: it has no end, a cell without a known outcome, or code that nobody answered."""
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
    """Its code ran without isolation: what the outputs say may be anything."""
    return not options.allow_unsafe and candidate.trace.meta.get("sandbox") == UNISOLATED


def unfinished(candidate: Candidate, options: FilterOptions) -> bool:
    """It did not end by itself with an answer: a limit, repetition, no answer."""
    return candidate.trace.outcome is not TraceOutcome.ANSWERED


def too_long(candidate: Candidate, options: FilterOptions) -> bool:
    """It has more tokens than may be trained on. Nothing is ever cut to fit."""
    return candidate.trace.count() > options.max_length


def toolless(candidate: Candidate, options: FilterOptions) -> bool:
    """It ran no code where code is wanted."""
    return options.require_tool and not candidate.outputs


def hinted_only(candidate: Candidate, options: FilterOptions) -> bool:
    """A hint began every cell of it, where one of the model's own is wanted."""
    return options.require_unhinted and not candidate.trace.unhinted_tool_calls


def failed_cells(candidate: Candidate, options: FilterOptions) -> bool:
    """More of its cells failed, timed out or died than are allowed."""
    return candidate.failed_cells > options.max_failed_cells


def truncated_output(candidate: Candidate, options: FilterOptions) -> bool:
    """Something was cut out of an output, or a cell was stopped for printing too much."""
    if Outcome.OUTPUT in candidate.outputs:
        return True
    return any(was_cut(candidate.tokenizer.decode(s.token_ids)) for s in candidate.trace.of_kind(SpanKind.TOOL_OUTPUT))


def answer_before_code(candidate: Candidate, options: FilterOptions) -> bool:
    """The model had boxed its final answer before its first cell: the code decided nothing."""
    reading = candidate.reading
    if not reading.cells or candidate.trace.answer is None:
        return False
    before = reading.model_text(0, reading.cells[0].fence)
    return any(box.content == candidate.trace.answer for box in boxes(before))


def invented_output(candidate: Candidate, options: FilterOptions) -> bool:
    """The model wrote an output block of its own: learning from it would teach making outputs up."""
    block = re.compile(rf"^{re.escape(candidate.reading.dialect.output_open.rstrip())}(?!\w)", re.MULTILINE)
    return any(block.search(text) for text in _prose(candidate.reading))


def token_loop(candidate: Candidate, options: FilterOptions) -> bool:
    """A run of tokens over and over, anywhere in what the model wrote."""
    rule = Repetition(min_tokens=options.repeat_tokens, min_repeats=options.repeat_times)
    return rule.anywhere(_written(candidate.trace))


def repeated_ngrams(candidate: Candidate, options: FilterOptions) -> bool:
    """Too large a share of the n-grams that the model wrote were there before."""
    size = options.ngram_size
    hashes = ngram_hashes(_written(candidate.trace), size)
    count = len(hashes)
    if count < 2 * size:  # so short a text has too few of them to judge by
        return False
    return 1 - len(set(hashes.tolist())) / count > options.ngram_share


def repeated_lines(candidate: Candidate, options: FilterOptions) -> bool:
    """One line of prose too often."""
    lines = Counter(line.strip() for text in _prose(candidate.reading) for line in text.splitlines())
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
"""In the order in which they are asked. Leakage is asked before all of them, of the problem and not of the trace."""


def refused_by(candidate: Candidate, options: FilterOptions) -> str | None:
    """The first filter that refuses a trace; None where none does."""
    return next((name for name, refuses in FILTERS.items() if refuses(candidate, options)), None)


def leaked(record: Mapping[str, Any], held_out: HeldOut | None) -> str | None:
    """Which kind of duplicate of a held-out problem a record's problem is; None where it is none."""
    if held_out is None:
        return None
    match = held_out.match(str(record["question"]), str(record["problem"]), str(record["gold"] or ""))
    return None if match is None else f"leaked_{match.kind}"


def _prose(reading: TraceView) -> list[str]:
    """What the model wrote outside the cells that ran."""
    places = [0, *(place for cell in reading.cells for place in (cell.fence, cell.end)), len(reading.text)]
    return [reading.model_text(*pair) for pair in zip(places[::2], places[1::2], strict=True)]


def _written(trace: Trace) -> list[int]:
    return [token_id for span in trace.of_kind(SpanKind.MODEL) for token_id in span.token_ids]
