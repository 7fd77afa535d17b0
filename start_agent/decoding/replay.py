"""Replay a stored trace through a controller, to verify that it makes the same decisions."""

from __future__ import annotations

from dataclasses import replace

from hints import HintLibrary
from start_agent.decoding.actions import Finish, FirstHint, Generate, Step
from start_agent.decoding.controller import Controller
from start_agent.decoding.settings import DecodingSettings
from start_agent.errors import ReplayError
from start_agent.fields import stored
from start_agent.tokens.dialects import dialect_of
from start_agent.tokens.markers import Matcher
from start_agent.tokens.prompts import Prompt
from start_agent.tokens.stopping import StopKind
from start_agent.tokens.tokenizer import Tokenizer
from start_agent.trace import SpanKind, Trace


def replay(trace: Trace, tokenizer: Tokenizer, hints: HintLibrary | None = None) -> None:
    """Recompute the controller's decisions from the trace's model spans and tool outputs, and compare.

    Args:
        trace: a finished trace with the ``meta`` that the solver stores.
        tokenizer: the model's tokenizer.
        hints: the library that the trace was made with; the built-in one by default.

    Raises:
        ReplayError: a decision differs; the message says where.
    """
    meta = trace.meta
    settings = stored(DecodingSettings, meta["settings"])
    prompt, dialect = prompt_of(trace), dialect_of(meta)
    markers = settings.markers(*prompt.think_ends, think_start=prompt.think_start, dialect=dialect)
    controller = Controller(
        prompt,
        tokenizer=tokenizer,
        matcher=Matcher(tokenizer, markers),
        hints=HintLibrary.builtin() if hints is None else hints,
        settings=settings,
        seed=meta["seed"],
        context_length=meta["context_length"],
        first_hint=FirstHint(**meta["first_hint"]) if "first_hint" in meta else None,
        dialect=dialect,
    )
    step, at = controller.start(), 0
    while not isinstance(step.action, Finish):
        at = _compare(trace, at, step)
        if at == len(trace.spans):
            raise ReplayError(f"the trace ends after {at} spans, but the controller continues: {step.action}")
        span = trace.spans[at]
        expected = SpanKind.MODEL if isinstance(step.action, Generate) else SpanKind.TOOL_OUTPUT
        if span.kind is not expected:
            raise ReplayError(f"span {at} is of kind {span.kind}, but the controller expects {expected}")
        if expected is SpanKind.MODEL:
            step = controller.turn_ended(span.token_ids, StopKind(span.cause), span.logprobs)
        else:
            step = controller.tool_returned(dialect.text_in(tokenizer.decode(span.token_ids)), span.cause)
    at = _compare(trace, at, step)
    made = Finish(trace.outcome, trace.answer, trace.answer_begins) if trace.outcome else None
    known = step.action if trace.schema > 1 else replace(step.action, answer_begins=None)
    if at != len(trace.spans) or made != known:
        raise ReplayError(f"the controller ends after {at} spans with {step.action}, the trace does not")


def prompt_of(trace: Trace) -> Prompt:
    """The prompt of a stored trace."""
    meta = trace.meta
    ends = tuple(meta.get("think_ends", [meta.get("think_end", "</think>")]))
    ids = tuple(token_id for span in trace.of_kind(SpanKind.PROMPT) for token_id in span.token_ids)
    return Prompt(ids, meta.get("thinking", True), ends, meta.get("think_start", ""), meta.get("think_opens", ""))


def _compare(trace: Trace, at: int, step: Step) -> int:
    """Compare a step's spans with the trace's from index ``at`` on. Returns the index after them."""
    for span in step.spans:
        if at == len(trace.spans) or trace.spans[at] != span:
            raise ReplayError(f"span {at} is not what the controller decides: {span.kind} {span.cause!r}")
        at += 1
    return at
