"""Builds a response from a rollout: its output items, and the events that stream them.

One builder makes both from the same segments and cells, so that a stream adds up to exactly the response that is
returned without streaming. The order of events, for an answer with one cell::

    response.created  response.in_progress
    output_item.added (reasoning)  content_part.added  reasoning_text.delta …  reasoning_text.done  content_part.done
    output_item.done
    output_item.added (code_interpreter_call)  code_interpreter_call.in_progress  code_interpreter_call_code.delta …
    code_interpreter_call_code.done  code_interpreter_call.interpreting    (now the cell runs)
    code_interpreter_call.completed  output_item.done
    …
    output_item.added (message)  content_part.added  output_text.delta …  output_text.done  content_part.done
    output_item.done
    response.completed, response.incomplete or response.failed

Thoughts are passed on unchanged, including hints; the fences around code, the block of an output and the markers around
the thinking are left out. White space alone makes no item, and leading white space of an answer is dropped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sandbox import Result
from start_agent.decoding.segments import Segment, SegmentKind
from start_agent.server.response_items import JSON, CodeCall, Message, Reasoning, new_id
from start_agent.tokens.dialects import FENCES, Dialect
from start_agent.trace import SpanKind, TraceOutcome

_CUT_OFF = {
    TraceOutcome.TOKEN_LIMIT: "max_output_tokens",
    TraceOutcome.CONTEXT_LIMIT: "max_output_tokens",
    TraceOutcome.TURN_LIMIT: None,  # OpenAI has no reason for these; the extension
    TraceOutcome.REPETITION: None,  # has the outcome of the trace
}


class ResponseBuilder:
    """Builds one response.

    Its methods return the next events, each a new object that is not changed afterwards.

    Args:
        envelope: the response's fields except ``status``, ``output``, ``usage``, ``error``, ``incomplete_details``
            and ``completed_at``.
        container_id: the container of its cells.
        dialect: how the model calls code.
        make_id: makes an item's id from its prefix.
        clock: the time in seconds since 1970.
    """

    def __init__(
        self,
        envelope: JSON,
        container_id: str,
        *,
        dialect: Dialect = FENCES,
        make_id: Callable[[str], str] = new_id,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._envelope, self._container_id, self._dialect = envelope, container_id, dialect
        self._make_id, self._clock = make_id, clock
        self._output: list[JSON] = []
        self._open: Reasoning | CodeCall | Message | None = None
        self._held: list[Segment] = []  # may belong to the next item
        self._number = 0
        self._ended: JSON | None = None

    @property
    def response(self) -> JSON:
        """The current response, with its completed items."""
        return self._snapshot("in_progress") if self._ended is None else self._ended

    def begin(self) -> list[JSON]:
        """The first events."""
        return [self._event(f"response.{name}", response=self.response) for name in ("created", "in_progress")]

    def segment(self, segment: Segment, logprobs: Sequence[JSON] = ()) -> list[JSON]:
        """Add the next segment of the trace.

        Args:
            segment: the segment.
            logprobs: the log-probabilities of its tokens in the format of ``output_text``; for answers only.
        """
        return list(self._segment(segment, logprobs))

    def cell_started(self) -> list[JSON]:
        """The code was sent to the sandbox."""
        call = self._open
        assert isinstance(call, CodeCall), "a cell runs when its block has closed"
        call.started = True
        return [self._event("response.code_interpreter_call.interpreting", item_id=call.id, output_index=call.index)]

    def cell_finished(self, result: Result) -> list[JSON]:
        """The sandbox has returned a result. The output's segment, which follows, completes the item."""
        assert isinstance(self._open, CodeCall), "no cell has started"
        self._open.result = result
        return []

    def finish(self, outcome: TraceOutcome, *, usage: JSON, extension: JSON) -> list[JSON]:
        """The trace is complete.

        Args:
            outcome: the trace's outcome.
            usage: OpenAI's token counts.
            extension: the response's ``start_agent``.
        """
        more: JSON = {"usage": usage, "start_agent": extension}
        if outcome in _CUT_OFF:
            return self._end("incomplete", incomplete_details={"reason": _CUT_OFF[outcome]}, **more)
        return self._end("completed", completed_at=int(self._clock()), **more)

    def fail(self, message: str, *, code: str = "server_error") -> list[JSON]:
        """The infrastructure failed: there is no trace."""
        return self._end("failed", error={"code": code, "message": message})

    def cancel(self) -> list[JSON]:
        """The response was cancelled. There is no such event: the last one is ``response.incomplete``."""
        return self._end("cancelled", event="incomplete")

    def _segment(self, segment: Segment, logprobs: Sequence[JSON]) -> Iterator[JSON]:
        match segment.kind:
            case SegmentKind.THOUGHT:
                yield from self._words(Reasoning, segment)
            case SegmentKind.ANSWER:
                yield from self._words(Message, segment, logprobs)
            case SegmentKind.CODE_OPEN:
                yield from self._close()
                call = CodeCall(self._make_id(CodeCall.prefix), self._place, container_id=self._container_id)
                call.count(segment)
                yield from self._add(call)
                yield self._of(call, "code_interpreter_call.in_progress")
            case SegmentKind.CODE:
                call = self._call
                call.count(segment)
                if segment.text:
                    call.texts.append(segment.text)
                    yield self._of(call, "code_interpreter_call_code.delta", delta=segment.text)
            case SegmentKind.CODE_CLOSE:
                self._call.count(segment)
                yield from self._code_done(self._call)
                if segment.author is not SpanKind.MODEL:  # a block that the model left open is closed, not run
                    yield from self._close()
            case SegmentKind.OUTPUT:
                yield from self._after_code(segment)
            case SegmentKind.MARKER:
                yield from self._close(segment)

    def _words(
        self, kind: type[Reasoning] | type[Message], segment: Segment, logprobs: Sequence[JSON] = ()
    ) -> Iterator[JSON]:
        """Add thoughts or an answer to the open item, or start one."""
        one, text = self._open, segment.text
        if not isinstance(one, kind):
            # Text in the same token as the closing fence comes after the cell.
            waits = isinstance(one, CodeCall) and one.closed and segment.author is SpanKind.MODEL
            if waits or not text.strip():
                self._held.append(segment)
                return
            before, self._held = self._held, []
            yield from self._close()
            one = kind(self._make_id(kind.prefix), self._place)
            yield from self._add(one)
            yield self._of_part(one, "content_part.added", part=one.part())
            for held in before:
                one.count(held)
            if kind is Message:
                shown = text.lstrip()
                logprobs = _shown(logprobs, len(text[: len(text) - len(shown)].encode()))
                text = shown
            else:
                text = "".join(held.text for held in before) + text
        one.count(segment)
        if isinstance(one, Message):
            one.logprobs += logprobs
        if text or logprobs:
            one.texts.append(text)
            yield self._of_part(one, f"{_TEXT[kind]}.delta", delta=text, **_listed(one, logprobs))

    def _after_code(self, segment: Segment) -> Iterator[JSON]:
        """Add inserted text: an output completes its call; so does a notice, for example that the code was not run."""
        call = self._open
        if not isinstance(call, CodeCall):
            return
        call.count(segment)
        if call.closed and call.result is None:
            call.notice = self._dialect.text_in(segment.text)
        yield from self._close()

    def _code_done(self, call: CodeCall) -> Iterator[JSON]:
        call.closed = True
        yield self._of(call, "code_interpreter_call_code.done", code=call.text)

    def _close(self, marker: Segment | None = None, *, cut_off: bool = False, failed: bool = False) -> Iterator[JSON]:
        """Complete the open item, if there is one.

        Args:
            marker: the marker that ends it.
            cut_off: whether the trace ended within it.
            failed: whether the infrastructure failed.
        """
        one, self._open = self._open, None
        if one is not None:
            yield from self._complete(one, marker, cut_off=cut_off, failed=failed)
        held, self._held = self._held, []
        if any(segment.text.strip() for segment in held):
            for segment in held:
                yield from self._words(Reasoning, segment)
            yield from self._close(cut_off=cut_off)

    def _complete(
        self, one: Reasoning | CodeCall | Message, marker: Segment | None, *, cut_off: bool, failed: bool
    ) -> Iterator[JSON]:
        if marker is not None:
            one.count(marker)
        status = "incomplete" if cut_off else "completed"
        if isinstance(one, CodeCall):
            if not one.closed:
                yield from self._code_done(one)
            if one.result is not None:
                status = "completed"
                yield self._of(one, "code_interpreter_call.completed")
            else:
                status = "failed" if failed and one.started else "incomplete"
        else:
            kind = type(one)
            listed = _listed(one, one.logprobs if isinstance(one, Message) else ())
            yield self._of_part(one, f"{_TEXT[kind]}.done", text=one.text, **listed)
            yield self._of_part(one, "content_part.done", part=one.part())
        item = one.item(status)
        self._output.append(item)
        yield self._event("response.output_item.done", output_index=one.index, item=item)

    def _add(self, one: Reasoning | CodeCall | Message) -> Iterator[JSON]:
        self._open = one
        yield self._event("response.output_item.added", output_index=one.index, item=one.item("in_progress"))

    def _end(self, status: str, *, event: str = "", **more: Any) -> list[JSON]:
        cut_off = status != "completed"
        events = list(self._close(cut_off=cut_off, failed=status == "failed"))
        self._ended = self._snapshot(status, **more)
        return [*events, self._event(f"response.{event or status}", response=self._ended)]

    def _snapshot(self, status: str, **more: Any) -> JSON:
        unset = {"error": None, "incomplete_details": None, "usage": None, "completed_at": None}
        return self._envelope | unset | {"status": status, "output": list(self._output)} | more

    @property
    def _place(self) -> int:
        return len(self._output)

    @property
    def _call(self) -> CodeCall:
        assert isinstance(self._open, CodeCall), "code comes after its opening fence"
        return self._open

    def _of_part(self, one: Reasoning | Message, name: str, **fields: Any) -> JSON:
        return self._of(one, name, content_index=0, **fields)

    def _of(self, one: Reasoning | CodeCall | Message, name: str, **fields: Any) -> JSON:
        return self._event(f"response.{name}", item_id=one.id, output_index=one.index, **fields)

    def _event(self, name: str, **fields: Any) -> JSON:
        event = {"type": name, "sequence_number": self._number, **fields}
        self._number += 1
        return event


_TEXT: dict[type[Reasoning] | type[Message], str] = {Reasoning: "reasoning_text", Message: "output_text"}


def _listed(one: Reasoning | Message, logprobs: Sequence[JSON]) -> JSON:
    """The field ``logprobs`` of an answer's events: without ``bytes``, which only items have."""
    if isinstance(one, Reasoning):
        return {}
    rows = []
    for row in logprobs:
        likeliest = [{"token": top["token"], "logprob": top["logprob"]} for top in row["top_logprobs"]]
        rows.append({"token": row["token"], "logprob": row["logprob"], "top_logprobs": likeliest})
    return {"logprobs": rows}


def _shown(logprobs: Sequence[JSON], hidden: int) -> Sequence[JSON]:
    """The rows without the tokens that lie within the first ``hidden`` bytes."""
    for at, row in enumerate(logprobs):
        hidden -= len(row["bytes"])
        if hidden < 0:
            return logprobs[at:]
    return ()
