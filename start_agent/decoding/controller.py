"""The controller: observation → next action.

A pure state machine: no I/O, no clock, no engine. Its only randomness is a generator seeded by the caller. The same
observations lead to the same actions, so a stored trace can be replayed through it.

::

    start() ─► Generate ─► turn_ended ─┬─ connective     ─► + hint        ─► Generate
                                       ├─ end of thinking ─► + hint       ─► Generate      (hints left)
                                       ├─ code closed    ─► RunCode ─► tool_returned ─► + tool output ─► Generate
                                       ├─ code closed    ─► + notice      ─► Generate      (no calls left)
                                       ├─ thinking budget ─► + notice     ─► Generate      (the answer)
                                       └─ end, limit, repetition          ─► Finish
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from hints import Domain, HintLibrary, Placement, join
from start_agent.decoding.actions import (
    CALLS_USED_UP,
    THINKING_BUDGET,
    THINKING_OPENED,
    Action,
    Finish,
    FirstHint,
    Generate,
    RunCode,
    Step,
)
from start_agent.decoding.hint_files import in_dialect
from start_agent.decoding.settings import DecodingSettings
from start_agent.errors import ContextLengthError, PromptError
from start_agent.logprobs import TokenLogprob
from start_agent.seeds import derive_seed
from start_agent.tokens.answers import last_boxed, last_code_block
from start_agent.tokens.dialects import FENCES, Dialect
from start_agent.tokens.markers import Block, MarkerKind, Match, Matcher, answer_begins
from start_agent.tokens.phases import Phase, phase_of
from start_agent.tokens.prompts import Prompt
from start_agent.tokens.stopping import StopChecker, StopConditions, StopKind
from start_agent.tokens.tokenizer import Tokenizer
from start_agent.trace import Span, SpanKind, TraceOutcome

EMPTY_OUTPUT = "(no output: print a value to see it)"
"""The tool output of code that printed nothing."""


class Controller:
    """Controls one trace.

    Args:
        prompt: the rendered question.
        tokenizer: the model's tokenizer.
        matcher: for the same vocabulary, with the markers of ``settings``, ``dialect`` and ``prompt``.
        hints: the library that hints are chosen from.
        settings: hints, tools and limits.
        seed: decides which hints are inserted where; the sampling seeds of turns are derived from it.
        seeded: whether turns are sampled with seeds; False leaves sampling to the engine's own randomness.
        context_length: the engine's context length, in tokens.
        first_hint: inserted before the model's first token.
        dialect: the dialect that ``settings`` name.

    Raises:
        QuestionError, PromptError: see ``check_start``.
    """

    def __init__(
        self,
        prompt: Prompt,
        *,
        tokenizer: Tokenizer,
        matcher: Matcher,
        hints: HintLibrary,
        settings: DecodingSettings,
        seed: int,
        seeded: bool = True,
        context_length: int,
        first_hint: FirstHint | None = None,
        dialect: Dialect = FENCES,
    ) -> None:
        check_start(prompt, context_length, hinted=first_hint is not None)
        self.settings, self._dialect = settings, dialect
        self._tokenizer, self._matcher, self._hints = tokenizer, matcher, hints
        self._seed, self._seeded, self._random = seed, seeded, random.Random(derive_seed(seed, "hints"))
        self._prompt, self._context_left = prompt, context_length - len(prompt.token_ids)
        self._first_hint = first_hint
        self._state = prompt.state
        self._text = bytearray()  # everything after the prompt
        self._code_begins = self._code_ends = 0  # offsets in _text: the code of the latest block
        self._answer_begins = 0 if self._state.answering else None  # offset in _text ...
        self._answer_position = (len(prompt.token_ids), 0) if self._state.answering else None  # ... and in the trace
        self._length = len(prompt.token_ids)  # of the trace, in tokens
        self._written: list[int] = []  # token ids by the model
        self._thinking_tokens = 0  # how many of them were written while thinking
        self._thoughts: list[int] = []  # the latest thinking tokens, without code and tables: for repetition
        self._model_text = bytearray()
        self._since_inserted: int | None = None  # model tokens since the latest insertion; None before the first
        self._turns = self._hints_used = self._end_hints_used = self._calls = 0
        self._connectives_left = self._draw_connective()
        self._stop_begins: int | None = None  # offset in _text of the stop string that ended the latest turn
        self._conditions: StopConditions | None = None
        self._phase: Phase | None = None

    @property
    def phase(self) -> Phase:
        """What the model is doing now."""
        return self._phase or phase_of(self._state)

    def start(self) -> Step:
        """The first step: append the prompt and the first hint, if there is one."""
        spans = [Span(SpanKind.PROMPT, self._prompt.token_ids)]
        if self._first_hint is not None:
            if self._prompt.think_opens:
                opening = self._tokenizer.encode_markers(self._prompt.think_opens)
                spans.append(self._inserted(SpanKind.NOTICE, opening, THINKING_OPENED))
            hint = self._first_hint
            spans.append(self._inserted(SpanKind.HINT, self._tokenizer.encode(hint.text), hint.cause))
        return self._continue(*spans)

    def turn_ended(
        self, token_ids: tuple[int, ...], stop: StopKind, logprobs: tuple[TokenLogprob, ...] | None = None
    ) -> Step:
        """The engine generated ``token_ids``, trimmed by the trim rule, and stopped for this reason.

        ``logprobs`` do not affect decisions; they are stored in the span.
        """
        self._read(token_ids)
        span = Span(SpanKind.MODEL, token_ids, stop.value, logprobs)
        match stop:
            case StopKind.CONNECTIVE:
                self._hints_used += 1
                self._connectives_left = self._draw_connective()
                return self._hint(span, Placement.CONNECTIVE)
            case StopKind.THINK_END:
                self._end_hints_used += 1
                return self._hint(span, Placement.END_OF_THINK)
            case StopKind.EOS if not (token_ids and token_ids[-1] in self._tokenizer.eos_ids):  # EOS was dropped
                self._end_hints_used += 1
                return self._hint(span, Placement.END_OF_THINK)
            case StopKind.THINKING_BUDGET:
                return Step((span, self._end_of_thinking()), self._generate())
            case StopKind.CODE_CLOSE if self._calls < self.settings.max_tool_calls:
                self._calls += 1
                self._phase = Phase.AWAITING_TOOL
                return Step((span,), RunCode(self._code))
            case StopKind.CODE_CLOSE:
                notice = f"The code was not run: all {self.settings.max_tool_calls} tool calls are used up."
                return self._insert(SpanKind.NOTICE, self._as_output(notice), CALLS_USED_UP, span)
            case StopKind.EOS | StopKind.STOP:
                answer = self._answer(end=self._end_of_text(token_ids, stop))
                outcome = TraceOutcome.NO_ANSWER if answer is None else TraceOutcome.ANSWERED
                return Step((span,), self._finish(outcome, answer))
            case StopKind.REPETITION:
                return Step((span,), self._finish(TraceOutcome.REPETITION, self._answer()))
            case StopKind.LENGTH:
                return Step((span,), self._finish(self._limit_reached(), self._answer()))

    def tool_returned(self, text: str, outcome: str) -> Step:
        """The cell has run: ``text`` is what the model reads, ``outcome`` the sandbox's outcome of the cell."""
        self._phase = None
        return self._insert(SpanKind.TOOL_OUTPUT, self._as_output(text or EMPTY_OUTPUT), outcome)

    @property
    def _code(self) -> str:
        """The code of the block that has just closed, dedented."""
        return self._dialect.code_in(bytes(self._text[self._code_begins : self._code_ends]))

    def _read(self, token_ids: tuple[int, ...]) -> None:
        """Parse the markers in the model's tokens and update the state."""
        assert self._conditions is not None, "a turn ended that was never started"
        checker = StopChecker(self._matcher, self._state, self._conditions, self._thoughts)
        for token_id in token_ids:
            checker.push(token_id)
        self._follow(checker.matches)
        if self._answer_begins is not None and self._answer_position is None:
            token, byte = _position(token_ids, self._answer_begins - len(self._text), self._tokenizer)
            self._answer_position = self._length + token, byte
        self._length += len(token_ids)
        self._stop_begins = checker.stop_begins
        self._thinking_tokens += checker.thinking_tokens
        self._state, self._connectives_left = checker.state, checker.connectives_left
        self._written += token_ids
        self._thoughts = checker.thoughts
        text = self._tokenizer.bytes_of(token_ids)
        self._text += text
        self._model_text += text
        self._context_left -= len(token_ids)
        if self._since_inserted is not None:
            self._since_inserted += len(token_ids)

    def _follow(self, matches: Sequence[Match]) -> None:
        for match in matches:
            if match.kind is MarkerKind.CODE_OPEN:
                self._code_begins = match.end
            elif match.kind is MarkerKind.CODE_CLOSE:
                self._code_ends = max(match.begin, self._code_begins)
        begins = answer_begins(self._answer_begins, matches)
        if begins != self._answer_begins:
            self._answer_begins, self._answer_position = begins, None

    def _hint(self, span: Span, placement: Placement) -> Step:
        if self._thinking_left == 0:
            return self._continue(span)
        settings = self.settings
        template = settings.template if settings.domain is Domain.CODE else None
        hint = self._hints.choose(self._random, settings.domain, placement, template=template)
        closing = self._closing_fence()
        tail = closing or bytes(self._text[-64:]).decode("utf-8", errors="ignore")
        return self._insert(SpanKind.HINT, closing + join(tail, in_dialect(hint, self._dialect)), hint.id, span)

    def _closing_fence(self) -> str:
        """The closing fence of a block that the model has left open; empty if there is none."""
        if self._state.block is Block.PROSE:
            return ""
        closes = self._dialect.code_close if self._state.fence is None else self._state.fence.run.decode()
        return ("" if self._text.endswith(b"\n") else "\n") + closes + "\n"

    @property
    def _thinking_left(self) -> int | None:
        """Remaining thinking budget in tokens; None if unlimited."""
        budget = self.settings.thinking_token_budget
        return None if budget is None else max(budget - self._thinking_tokens, 0)

    def _end_of_thinking(self) -> Span:
        """The notice that ends the thinking; it also opens it if the model has not done so yet."""
        opens = self._prompt.think_opens
        markers = "" if opens.strip().encode() in self._text else opens
        ending = self._tokenizer.encode_markers(markers + self._prompt.think_ends[0])
        closing = self._tokenizer.encode(self._closing_fence())
        return self._inserted(SpanKind.NOTICE, [*closing, *ending], THINKING_BUDGET)

    def _insert(self, kind: SpanKind, text: str, cause: str, *before: Span) -> Step:
        """Insert text that the model did not write, encoded on its own, and continue generating."""
        return self._continue(*before, self._inserted(kind, self._tokenizer.encode(text), cause))

    def _inserted(self, kind: SpanKind, token_ids: Sequence[int], cause: str) -> Span:
        """A span of tokens that the model did not write; their markers are parsed like the model's."""
        encoded = self._tokenizer.bytes_of(token_ids)
        self._state, matches = self._matcher.inserted(self._state, encoded, kind)
        self._follow(matches)
        self._text += encoded
        self._length += len(token_ids)
        if self._answer_begins is not None and self._answer_position is None:  # a notice ended the thinking
            self._answer_position = self._length, 0
        self._context_left -= len(token_ids)
        self._since_inserted = 0
        return Span(kind, tuple(token_ids), cause)

    def _continue(self, *spans: Span) -> Step:
        """Append these spans and continue generating; ends the thinking first if its budget is used up."""
        if self._thinking_left == 0 and not self._state.answering:
            spans = (*spans, self._end_of_thinking())
        return Step(spans, self._generate())

    def _as_output(self, text: str) -> str:
        separator = "" if self._text.endswith(b"\n") else "\n"
        return separator + self._dialect.output(text)

    def _generate(self) -> Action:
        settings = self.settings
        left = min(self._context_left, settings.max_tokens - len(self._written))
        if left <= 0:
            return self._finish(self._limit_reached(), self._answer())
        may_hint = settings.hints and settings.tools and self._calls < settings.max_tool_calls
        cooldown = 0 if self._since_inserted is None else settings.hint_cooldown - self._since_inserted
        self._conditions = StopConditions(
            eos_ids=self._tokenizer.eos_ids,
            code=settings.tools,
            connective=self._connectives_left if may_hint and self._hints_used < settings.max_hints else None,
            connective_after=max(cooldown, 0),
            replace=may_hint and self._end_hints_used < settings.end_of_think_hints,
            repetition=settings.repetition,
            thinking_tokens=self._thinking_left,
            stop=settings.stop,
        )
        self._turns += 1
        return Generate(
            max_tokens=min(left, settings.max_turn_tokens),
            conditions=self._conditions,
            state=self._state,
            recent=tuple(self._thoughts[-self._conditions.repetition.window :]) if self._conditions.repetition else (),
            seed=derive_seed(self._seed, f"turn {self._turns}") if self._seeded else None,
        )

    def _limit_reached(self) -> TraceOutcome:
        if self._context_left <= 0:
            return TraceOutcome.CONTEXT_LIMIT
        if len(self._written) >= self.settings.max_tokens:
            return TraceOutcome.TOKEN_LIMIT
        return TraceOutcome.TURN_LIMIT

    def _finish(self, outcome: TraceOutcome, answer: str | None) -> Finish:
        self._phase = Phase.DONE
        return Finish(outcome, answer, self._answer_position)

    def _end_of_text(self, token_ids: Sequence[int], stop: StopKind) -> int:
        """Bytes at the end of the text that are not part of the answer: the EOS token, or the stop string and what
        follows it."""
        if stop is StopKind.STOP and self._stop_begins is not None:
            return len(self._text) - self._stop_begins
        return len(self._tokenizer.bytes_of(token_ids[-1:]))

    def _answer(self, *, end: int = 0) -> str | None:
        """The last closed box after thinking, or the program.

        Of a model that ended its text while thinking, all text is searched. ``end`` is the number of bytes to ignore at
        the end of the text (``_end_of_text``).
        """
        if self._answer_begins is not None:
            text = self._text[self._answer_begins :]  # nothing is inserted after thinking
        elif end:
            text = self._model_text
        else:
            return None
        answer = text[: len(text) - end].decode("utf-8", errors="replace")
        code = last_code_block(answer) if self.settings.domain is Domain.CODE else None
        return last_boxed(answer) if code is None else code  # a program may print boxes, and words about it hold some

    def _draw_connective(self) -> int | None:
        """How many connectives to skip before the next hint; None to skip all."""
        chance = self.settings.hint_probability
        if chance == 0:
            return None
        skipped = 0
        while self._random.random() >= chance:
            skipped += 1
        return skipped


def check_start(prompt: Prompt, context_length: int, *, hinted: bool = False) -> None:
    """Refuse a prompt that no trace can start from.

    Args:
        prompt: the rendered question.
        context_length: the engine's context length, in tokens.
        hinted: whether there is a first hint.

    Raises:
        ContextLengthError: the prompt fills the whole context.
        PromptError: there is a first hint, but the prompt has already closed the thinking.
    """
    if hinted and not prompt.thinking:
        raise PromptError("a first hint needs thinking, which is off: switch thinking on, or drop the hint")
    if len(prompt.token_ids) >= context_length:
        raise ContextLengthError(
            f"the prompt has {len(prompt.token_ids)} tokens and the model's context is {context_length}: "
            "shorten the question"
        )


def _position(token_ids: Sequence[int], byte: int, tokenizer: Tokenizer) -> tuple[int, int]:
    """The index of the token that holds this byte of the decoded ids, and the byte's offset in the token."""
    for at, token_id in enumerate(token_ids):
        size = len(tokenizer.bytes_of((token_id,)))
        if byte < size:
            return at, byte
        byte -= size
    return len(token_ids), 0
