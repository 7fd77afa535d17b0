"""A rollout for a request: a trace as it is generated, in the pieces that a client is sent.

Chat completions, completions and responses are built from ``Rollout.items``: segments in the order of the trace, the
cells between them, and at the end the trace itself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial

from sandbox import Session
from start_agent.decoding.controller import check_start
from start_agent.decoding.events import CellFinished, CellStarted, Cost, ModelText, SpanAdded, TraceFinished
from start_agent.decoding.segments import Segment, Segmenter, SegmentKind
from start_agent.decoding.settings import DecodingSettings
from start_agent.decoding.solver import Solver
from start_agent.decoding.trace_options import first_hint_of
from start_agent.engines.base import Sampling
from start_agent.errors import ConfigError, InputError
from start_agent.logprobs import TokenLogprob
from start_agent.seeds import derive_seed
from start_agent.server.errors import about
from start_agent.tokens.prompts import Prompt
from start_agent.tokens.templates import ChatOptions
from start_agent.tokens.tokenizer import Message
from start_agent.trace import SpanKind, Trace

NAME = "start_agent"
"""The one parameter that is not OpenAI's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRequest:
    """A request in terms of the solver; None stands for the server's default.

    Attributes:
        messages: the conversation; None if ``prompt`` is given.
        prompt: a rendered or raw prompt instead of messages.
        question: the question that the trace records for a raw prompt.
        settings: decoding settings.
        sampling: sampling parameters.
        chat: options of the chat template.
        instruction: a sentence after the user's last message.
        seed: seed of sampling and hints; None for a random one.
        session: a container's kernel; without one, a kernel is started with the first cell and ends with the trace.
        trace_id: the trace's id for the engine; None for a new one.
        keep: keep the engine's cached state of the trace; the caller releases it.
        first_hint: the id of a hint of the library, or a text, to insert at the beginning of the thinking.
    """

    messages: Sequence[Message] | None = None
    prompt: Prompt | None = None
    question: str | None = None
    settings: DecodingSettings | None = None
    sampling: Sampling | None = None
    chat: ChatOptions | None = None
    instruction: str = ""
    seed: int | None = None
    session: Session | None = None
    trace_id: str | None = None
    keep: bool = False
    first_hint: str | None = None


@dataclass(slots=True)
class TokenCounts:
    """Token counts of a rollout so far.

    Attributes:
        prompt: tokens of the prompt.
        cached: prompt tokens found in the engine's cache; known after the first turn.
        reasoning: written by the model up to the end of thinking, including code.
        answer: written by the model after that.
        hint: inserted as hints.
        tool_output: inserted as outputs of cells.
        notice: inserted as notices.
    """

    prompt: int = 0
    cached: int = 0
    reasoning: int = 0
    answer: int = 0
    hint: int = 0
    tool_output: int = 0
    notice: int = 0

    @property
    def completion(self) -> int:
        """Tokens that the model wrote; the rest was inserted, without sampling."""
        return self.reasoning + self.answer

    def add(self, segment: Segment, *, answering: bool) -> None:
        """Count a segment.

        Args:
            segment: the next segment of the trace.
            answering: whether the thinking had ended before it.
        """
        number = len(segment.token_ids)
        match segment.author:
            case SpanKind.HINT:
                self.hint += number
            case SpanKind.TOOL_OUTPUT:
                self.tool_output += number
            case SpanKind.NOTICE:
                self.notice += number
            case _ if segment.kind is SegmentKind.ANSWER or (answering and segment.kind is SegmentKind.MARKER):
                self.answer += number
            case _:
                self.reasoning += number


@dataclass(frozen=True, slots=True)
class Finished:
    """The last item: the trace is complete."""

    trace: Trace
    cost: Cost
    counts: TokenCounts


LONG = 20_000
"""Texts from this many characters are encoded in a thread, since that takes more than some ten milliseconds."""

Item = Segment | CellStarted | CellFinished | Finished
"""The items that a rollout yields."""


class Rollout:
    """A rollout: generates one trace for a request.

    Args:
        solver: the server's solver.
        request: the request.

    Attributes:
        solver: the server's solver with the request's settings.
        prompt: the prompt.
        counts: token counts so far.

    Raises:
        APIError: 400, an option that this model or this engine does not support, or a hint that cannot be inserted.
        PromptError: the messages cannot be rendered for this model, or the prompt is too long.
    """

    def __init__(self, solver: Solver, request: RolloutRequest) -> None:
        with about(NAME, ConfigError):
            self.solver = solver.changed(settings=request.settings, sampling=request.sampling, chat=request.chat)
        self.prompt = request.prompt or self.solver.format.prompt(
            request.messages or (), system=self.solver.system, instruction=request.instruction
        )
        check_start(self.prompt, solver.engine.context_length)
        with about(f"{NAME}.hint", InputError):
            first_hint_of(request.first_hint, solver.hints, self.solver.dialect)
            check_start(self.prompt, solver.engine.context_length, hinted=bool(request.first_hint))
        self.counts = TokenCounts(prompt=len(self.prompt.token_ids))
        self._request = request
        self._answering = self.prompt.state.answering
        self._logprobs: deque[TokenLogprob] = deque()  # of the model's tokens that are not in a segment yet
        self._segmenter = Segmenter(
            self.solver.matcher(self.prompt),
            self.prompt.state,
            solver.engine.tokenizer.eos_ids,
            runs=self.solver.settings.tools,
            stop=self.solver.settings.stop,
            opens=self.prompt.think_opens,
        )

    async def items(self) -> AsyncGenerator[Item, None]:
        """Generate the trace; the last item is ``Finished``. Can be called once.

        Closing the generator early cancels the trace, and ends its own kernel.

        Raises:
            EngineError, SandboxError: the infrastructure failed; there is no trace.
            InputError: the engine refuses the request.
        """
        request = self._request
        events = self.solver.stream(
            request.question,
            seed=request.seed,
            messages=request.messages,
            instruction=request.instruction,
            session=request.session,
            trace_id=request.trace_id,
            keep=request.keep,
            first_hint=request.first_hint,
            prompt=self.prompt,
        )
        async with aclosing(events):
            async for event in events:
                match event:
                    case ModelText(token_ids, _, _, logprobs):
                        self._logprobs.extend(logprobs or ())
                        for segment in self._counted(self._segmenter.written(token_ids)):
                            yield segment
                    case SpanAdded(span) if span.kind not in (SpanKind.PROMPT, SpanKind.MODEL):
                        for segment in self._counted(self._segmenter.inserted(span.kind, span.token_ids)):
                            yield replace(segment, cause=span.cause) if segment.author is span.kind else segment
                    case CellStarted() | CellFinished():
                        yield event
                    case TraceFinished(trace, cost):
                        for segment in self._counted(self._segmenter.flush()):
                            yield segment
                        self.counts.cached = min(cost.prompt_cached_tokens, self.counts.prompt)
                        yield Finished(trace, cost, self.counts)

    def _counted(self, segments: Iterable[Segment]) -> Iterator[Segment]:
        for segment in segments:
            self.counts.add(segment, answering=self._answering)
            if segment.kind is not SegmentKind.MARKER:
                self._answering = segment.kind is SegmentKind.ANSWER
            if self._logprobs and segment.author is SpanKind.MODEL:
                logprobs = tuple(self._logprobs.popleft() for _ in segment.token_ids)
                segment = replace(segment, logprobs=logprobs)
            yield segment


def merged(items: Iterable[Item]) -> list[Item]:
    """The items with neighbouring segments of one kind, author and cause merged, except fences and markers."""
    found: list[Item] = []
    for item in items:
        last = found[-1] if found else None
        if isinstance(item, Segment) and isinstance(last, Segment) and _goes_on(last, item):
            logprobs = None if item.logprobs is None else (last.logprobs or ()) + item.logprobs
            found[-1] = replace(
                last, text=last.text + item.text, token_ids=last.token_ids + item.token_ids, logprobs=logprobs
            )
        else:
            found.append(item)
    return found


def _goes_on(one: Segment, other: Segment) -> bool:
    apart = (SegmentKind.CODE_OPEN, SegmentKind.CODE_CLOSE, SegmentKind.MARKER)
    same = one.kind is other.kind and one.author is other.author and one.cause == other.cause
    return same and one.kind not in apart


async def rendered(
    solver: Solver, messages: Sequence[Message], *, chat: ChatOptions | None = None, instruction: str = ""
) -> Prompt:
    """Render the prompt of a conversation; a long one in a thread, so that the event loop is not blocked.

    Args:
        solver: the server's solver.
        messages: the conversation.
        chat: options of the chat template; None for the solver's.
        instruction: a sentence after the user's last message.

    Raises:
        APIError: 400, the template does not take the variables.
        PromptError: see ``ChatFormat.prompt``.
    """
    with about("chat_template_kwargs", ConfigError):
        chat_format = solver.changed(chat=chat).format
    most = solver.engine.context_length
    make = partial(chat_format.prompt, messages, system=solver.system, instruction=instruction, most_tokens=most)
    size = sum(len(text) for message in messages for text in message.values())
    return make() if size < LONG else await asyncio.to_thread(make)


def seeds(given: int | None, count: int) -> list[int | None]:
    """The seeds of ``count`` rollouts of one request; the first one has the request's own seed."""
    if given is None:
        return [None] * count
    return [given, *(derive_seed(given, f"choice {index}") for index in range(1, count))]
