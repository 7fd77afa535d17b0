"""One request's rollout: a trace that grows, as the pieces that a client is sent.

``Rollout.items`` is what chat completions, completions and responses are made of: segments in the order of the trace,
the cells between them, and at the end the trace itself.
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
from start_agent.engines.base import Sampling
from start_agent.logprobs import TokenLogprob
from start_agent.seeds import derive_seed
from start_agent.tokens.prompts import Prompt
from start_agent.tokens.templates import ChatOptions
from start_agent.tokens.tokenizer import Message
from start_agent.trace import SpanKind, Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRequest:
    """What a client asks for, in the solver's terms; what is None is as the server was started with.

    Attributes:
        messages: the conversation; None where ``prompt`` is given.
        prompt: ids that no template has made, in place of messages.
        question: what those ids are said to be in the trace.
        settings: of decoding.
        sampling: how tokens are drawn.
        chat: of the chat template.
        instruction: a sentence that follows the last message of the user.
        seed: decides sampling and hints; None for what nobody can foresee.
        session: a container's kernel; without one, a kernel is started with the first cell and ends with the trace.
        trace_id: names the trace to the engine; a new name where None.
        keep: leave the engine's cached state of the trace; the caller releases it.
        first_hint: the id of a hint of the library, or a text, inserted where the thinking begins.
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
    """Tokens of a rollout so far, by what they are.

    Attributes:
        prompt: given to the model.
        cached: of the prompt, those whose KV the engine had already; known after the first turn.
        reasoning: written by the model up to the end of its thinking, code among them.
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
        """What the model wrote: the rest was inserted, at no cost of sampling."""
        return self.reasoning + self.answer

    def add(self, segment: Segment, *, answering: bool) -> None:
        """Count a segment.

        Args:
            segment: the next one of the trace.
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
"""Characters of a text that is encoded in some ten milliseconds; a longer one is encoded in a thread."""

Item = Segment | CellStarted | CellFinished | Finished
"""What a rollout yields, told apart by type."""


class Rollout:
    """A trace that is asked for, and what has come of it.

    Args:
        solver: the server's.
        request: what is asked.

    Attributes:
        solver: the server's, with the request's settings.
        prompt: what the model is given first.
        counts: tokens so far.

    Raises:
        ConfigError: an option that this model or this engine does not take.
        PromptError: the messages make no prompt for this model, or one that is too long.
    """

    def __init__(self, solver: Solver, request: RolloutRequest) -> None:
        self.solver = solver.changed(settings=request.settings, sampling=request.sampling, chat=request.chat)
        self.prompt = request.prompt or self.solver.format.prompt(
            request.messages or (), system=self.solver.system, instruction=request.instruction
        )
        check_start(self.prompt, solver.engine.context_length, hinted=bool(request.first_hint))
        self.counts = TokenCounts(prompt=len(self.prompt.token_ids))
        self._request = request
        self._answering = self.prompt.state.answering
        self._logprobs: deque[TokenLogprob] = deque()  # of the model's tokens that are in no segment yet
        self._segmenter = Segmenter(
            self.solver.matcher(self.prompt),
            self.prompt.state,
            solver.engine.tokenizer.eos_ids,
            runs=self.solver.settings.tools,
            stop=self.solver.settings.stop,
            opens=self.prompt.think_opens,
        )

    async def items(self) -> AsyncGenerator[Item, None]:
        """Grow the trace; the last item is ``Finished``. Can be called once.

        Closing the generator early cancels what is under way, and ends the kernel that the trace has of its own.

        Raises:
            EngineError, SandboxError: the infrastructure failed; there is no trace.
            InputError: what only the engine itself refuses.
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
    """The items, with segments that go on with one another made one. Fences stay as they are: each has a meaning."""
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
    """The prompt of a conversation; that of a long one is made in a thread, so that others are served meanwhile.

    Args:
        solver: the server's.
        messages: the conversation.
        chat: of the chat template; the solver's where None.
        instruction: a sentence that follows the last message of the user.

    Raises:
        ConfigError, PromptError: see ``ChatFormat.prompt``.
    """
    chat_format = solver.changed(chat=chat).format
    most = solver.engine.context_length
    make = partial(chat_format.prompt, messages, system=solver.system, instruction=instruction, most_tokens=most)
    size = sum(len(text) for message in messages for text in message.values())
    return make() if size < LONG else await asyncio.to_thread(make)


def seeds(given: int | None, count: int) -> list[int | None]:
    """The seeds of so many rollouts of one request; of the first it is the request's own."""
    if given is None:
        return [None] * count
    return [given, *(derive_seed(given, f"choice {index}") for index in range(1, count))]
