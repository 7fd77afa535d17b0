"""One choice of chat completions or completions: collects its items, and returns what is new since the last call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

from sandbox import Result
from start_agent.decoding.events import CellFinished
from start_agent.decoding.segments import Segment, SegmentKind
from start_agent.server.extension import report
from start_agent.server.rollout import Finished, Item
from start_agent.server.token_logprobs import logprob_rows
from start_agent.tokens.tokenizer import Tokenizer
from start_agent.trace import SpanKind, TraceOutcome

_STOPPED = (TraceOutcome.ANSWERED, TraceOutcome.NO_ANSWER)


class Part(Enum):
    """The field that a piece of text belongs to."""

    REASONING = "reasoning"
    """Thoughts, code and its outputs, as the model saw them."""
    CONTENT = "content"
    MARKER = "marker"
    """Not shown: the end of thinking, the end of sequence."""


@dataclass(slots=True)
class Piece:
    """Text of one kind by one author, with its tokens."""

    part: Part
    author: SpanKind
    texts: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The text."""
        return "".join(self.texts)


class Choice:
    """One choice.

    Args:
        index: its index.
        tokenizer: the model's tokenizer.

    Attributes:
        finished: the end of its rollout; None until then.
    """

    def __init__(self, index: int, tokenizer: Tokenizer) -> None:
        self.index = index
        self.finished: Finished | None = None
        self._tokenizer = tokenizer
        self._pieces: list[Piece] = []
        self._results: list[Result] = []

    def add(self, item: Item) -> None:
        """Add the next item of the rollout."""
        match item:
            case Segment():
                self._add(item)
            case CellFinished(result):
                self._results.append(result)
            case Finished():
                self.finished = item

    def take(self) -> list[Piece]:
        """Return and clear the new pieces; neighbours of one kind and author are merged."""
        pieces, self._pieces = self._pieces, []
        return pieces

    @property
    def finish_reason(self) -> Literal["stop", "length"]:
        """OpenAI's reason: ``length`` for every limit; the report names which."""
        assert self.finished is not None
        return "stop" if self.finished.trace.outcome in _STOPPED else "length"

    def report(self) -> dict[str, Any]:
        """The field ``start_agent``: authors, counts and outcome."""
        assert self.finished is not None
        return report(self.finished, self._results)

    def _add(self, segment: Segment) -> None:
        part = _part(segment)
        last = self._pieces[-1] if self._pieces else None
        if last is None or (last.part, last.author) != (part, segment.author):
            self._pieces.append(Piece(part, segment.author))
        piece = self._pieces[-1]
        piece.texts.append(segment.text)
        piece.token_ids += segment.token_ids
        piece.logprobs += logprob_rows(segment, self._tokenizer)


def usage(choices: Sequence[Choice], prompts: Sequence[int]) -> dict[str, Any]:
    """The token counts of a request.

    Args:
        choices: all choices, finished.
        prompts: the index of the first choice of each prompt; prompt and cached tokens are counted once per prompt.
    """
    counts = [choice.finished.counts for choice in choices if choice.finished is not None]
    prompt = sum(counts[index].prompt for index in prompts)
    completion = sum(one.completion for one in counts)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(counts[index].cached for index in prompts)},
        "completion_tokens_details": {"reasoning_tokens": sum(one.reasoning for one in counts)},
    }


def _part(segment: Segment) -> Part:
    match segment.kind:
        case SegmentKind.ANSWER:
            return Part.CONTENT
        case SegmentKind.MARKER:
            return Part.MARKER
        case _:
            return Part.REASONING
