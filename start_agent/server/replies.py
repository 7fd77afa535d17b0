"""Base class of the replies of chat completions and completions: several choices, whole or streamed."""

from __future__ import annotations

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from typing import Any, ClassVar

from fastapi import Request, Response

from start_agent.server.ascii_json import JSONResponse
from start_agent.server.choices import Choice, Piece, usage
from start_agent.server.errors import as_api_error
from start_agent.server.jobs import Batch, Job, until_gone
from start_agent.server.rollout import Rollout
from start_agent.server.sse import DONE, EventStream, data_event
from start_agent.server.state import State, client_of

JSON = dict[str, Any]
"""A JSON object."""


class Reply(ABC):
    """The reply to one request.

    Args:
        state: the server's state.
        rollouts: the rollout of each choice.
        prompts: the index of the first choice of each prompt.
        include_usage: whether a stream ends with the token counts.

    Attributes:
        choices: the choices, in order.
    """

    prefix: ClassVar[str]
    whole_object: ClassVar[str]
    chunk_object: ClassVar[str]

    def __init__(
        self, state: State, rollouts: Sequence[Rollout], *, prompts: Sequence[int], include_usage: bool
    ) -> None:
        self._rollouts, self._prompts, self._include_usage = rollouts, prompts, include_usage
        self.choices = [Choice(index, state.solver.engine.tokenizer) for index in range(len(rollouts))]
        self._envelope = {
            "id": f"{self.prefix}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": state.model,
        }

    async def answer(self, state: State, request: Request, *, stream: bool) -> Response:
        """Run the rollouts and return the response. Raises ``APIError`` if the queue is full."""
        job = Job(state, client_of(request), self._rollouts, request_id=request.state.request_id)
        if stream:
            return EventStream(job, self.events(job))
        async with job:
            return JSONResponse(await until_gone(request, self.whole(job)))

    async def whole(self, job: Job) -> JSON:
        """The whole response."""
        async for batch in job.batches():
            self._add(batch)
        choices = [self.complete(choice, choice.take()) for choice in self.choices]
        tokens = usage(self.choices, self._prompts)
        return {**self._envelope, "object": self.whole_object, "choices": choices, "usage": tokens, **self.beside()}

    async def events(self, job: Job) -> AsyncGenerator[bytes, None]:
        """As it comes: the events of one batch at once."""
        try:
            yield b"".join(self._chunk([row], **self.beside()) for row in self.beginning())
            async with aclosing(job.batches()) as batches:
                async for batch in batches:
                    rows = (row for choice in self._add(batch) for row in self.rows(choice, choice.take()))
                    yield b"".join(self._chunk([row]) for row in rows)
            if self._include_usage:
                yield self._chunk([], usage=usage(self.choices, self._prompts))
        except Exception as error:
            yield data_event(as_api_error(error).body)
        yield DONE

    @abstractmethod
    def complete(self, choice: Choice, pieces: Sequence[Piece]) -> JSON:
        """A choice of the whole response."""

    @abstractmethod
    def rows(self, choice: Choice, pieces: Sequence[Piece]) -> Iterable[JSON]:
        """The choices of the chunks for these pieces, and of a last one once the choice has finished."""

    def beginning(self) -> Iterable[JSON]:
        """The choices of the first chunks of a stream."""
        return ()

    def beside(self) -> JSON:
        """Additional fields of the response."""
        return {}

    def _add(self, batch: Batch) -> list[Choice]:
        """Add items to their choices. Returns the choices that changed."""
        for index, item in batch:
            self.choices[index].add(item)
        return [self.choices[index] for index in sorted({index for index, _ in batch})]

    def _chunk(self, choices: list[JSON], **more: Any) -> bytes:
        none = {"usage": None} if self._include_usage else {}
        return data_event({**self._envelope, "object": self.chunk_object, "choices": choices, **none, **more})


def ids_of(pieces: Iterable[Piece]) -> JSON:
    """The token ids of the pieces, and the author of each."""
    token_ids: list[int] = []
    authors: list[str] = []
    for piece in pieces:
        token_ids += piece.token_ids
        authors += [piece.author.value] * len(piece.token_ids)
    return {"token_ids": token_ids, "token_authors": authors}
