"""``POST /v1/chat/completions``: thoughts, code and outputs under the names for reasoning, the answer as content."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from start_agent.server.body import new_router
from start_agent.server.chat_protocol import ChatCompletion, ChatRequest
from start_agent.server.choices import Choice, Part, Piece, usage
from start_agent.server.errors import ERRORS, as_api_error
from start_agent.server.jobs import Batch, Job, until_gone
from start_agent.server.rollout import Rollout, RolloutRequest, rendered, seeds
from start_agent.server.sse import DONE, EventStream, data_event
from start_agent.server.state import State, client_of, state_of
from start_agent.server.thinking import chat_options

router = new_router()

_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": ChatCompletion,
        "description": "the answer, or with ``stream`` events of ``chat.completion.chunk`` objects",
        "content": {"text/event-stream": {}},
    }
}


@router.post("/chat/completions", responses={**_ANSWERS, **ERRORS})
async def create_chat_completion(request: Request, body: ChatRequest) -> Response:
    """Answer a conversation."""
    state = state_of(request)
    state.check_model(body.model)
    rollouts = await _rollouts(state, body)
    reply = _Reply(state, body, rollouts)
    job = Job(state, client_of(request), rollouts, request_id=request.state.request_id)
    if body.stream:
        return EventStream(job, reply.events(job))
    async with job:
        return JSONResponse(await until_gone(request, reply.whole(job)))


async def _rollouts(state: State, body: ChatRequest) -> list[Rollout]:
    solver = state.solver
    settings = body.settings(
        solver.settings,
        max_tokens=body.max_completion_tokens or body.max_tokens,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
    )
    chat = chat_options(solver, effort=body.reasoning_effort, variables=body.chat_template_kwargs)
    messages = [message.message for message in body.messages]
    prompt = await rendered(solver, messages, chat=chat, instruction=state.instruction)
    return [
        Rollout(
            solver,
            RolloutRequest(
                messages=messages,
                prompt=prompt,
                settings=settings,
                sampling=body.sampling(solver.sampling),
                chat=chat,
                instruction=state.instruction,
                seed=seed,
                first_hint=body.hint,
            ),
        )
        for seed in seeds(body.seed, body.n or 1)
    ]


class _Reply:
    """The answer to one request."""

    def __init__(self, state: State, body: ChatRequest, rollouts: Sequence[Rollout]) -> None:
        self._body, self._prompt = body, rollouts[0].prompt.token_ids
        self._envelope = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": state.model}
        self._choices = [Choice(index, state.solver.engine.tokenizer) for index in range(len(rollouts))]
        names = state.options.reasoning_field
        self._names = ("reasoning", "reasoning_content") if names == "both" else (names,)

    async def whole(self, job: Job) -> dict[str, Any]:
        """All of it at once."""
        async for batch in job.batches():
            self._add(batch)
        found = {**self._envelope, "object": "chat.completion", "choices": [self._whole(one) for one in self._choices]}
        return found | {"usage": usage(self._choices, [0])} | self._prompt_ids()

    async def events(self, job: Job) -> AsyncGenerator[bytes, None]:
        """As it comes. The first event of each choice has the role, the last one says how it ended."""
        try:
            for choice in self._choices:
                more = self._prompt_ids() if choice.index == 0 else {}
                yield self._chunk([_delta(choice, {"role": "assistant", "content": ""})], **more)
            async for batch in job.batches():
                for choice in self._add(batch):
                    for piece in choice.take():
                        if row := self._piece(choice, piece):
                            yield self._chunk([row])
                    if choice.finished is not None:
                        ended = {"finish_reason": choice.finish_reason, "start_agent": choice.report()}
                        yield self._chunk([_delta(choice, {}) | ended])
            if self._body.include_usage:
                yield self._chunk([], usage=usage(self._choices, [0]))
        except Exception as error:
            yield data_event(as_api_error(error).body)
        yield DONE

    def _add(self, batch: Batch) -> list[Choice]:
        """Add items to their choices; returns those that got some."""
        for index, item in batch:
            self._choices[index].add(item)
        return [self._choices[index] for index in sorted({index for index, _ in batch})]

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        none = {"usage": None} if self._body.include_usage else {}
        return data_event({**self._envelope, "object": "chat.completion.chunk", "choices": choices, **none, **more})

    def _piece(self, choice: Choice, piece: Piece) -> dict[str, Any] | None:
        """A piece as a choice of a chunk; None where there is nothing to tell."""
        text = "" if piece.part is Part.MARKER else piece.text
        delta = self._thoughts(text) if piece.part is Part.REASONING else {"content": text} if text else {}
        row = _delta(choice, delta if text else {})
        if self._body.logprobs and piece.logprobs and piece.part is not Part.MARKER:
            row["logprobs"] = _logprobs([piece])
        if self._body.return_token_ids:
            row |= _ids([piece])
        return row if text or (self._body.return_token_ids and piece.token_ids) else None

    def _whole(self, choice: Choice) -> dict[str, Any]:
        pieces = choice.take()
        texts = {part: "".join(piece.text for piece in pieces if piece.part is part) for part in Part}
        message = {"role": "assistant", "content": texts[Part.CONTENT], "refusal": None}
        found = {
            "index": choice.index,
            "message": message | self._thoughts(texts[Part.REASONING]),
            "finish_reason": choice.finish_reason,
            "logprobs": _logprobs(pieces) if self._body.logprobs else None,
            "start_agent": choice.report(),
        }
        return found | (_ids(pieces) if self._body.return_token_ids else {})

    def _thoughts(self, text: str) -> dict[str, str]:
        return dict.fromkeys(self._names, text) if text else {}

    def _prompt_ids(self) -> dict[str, Any]:
        return {"prompt_token_ids": list(self._prompt)} if self._body.return_token_ids else {}


def _delta(choice: Choice, delta: dict[str, Any]) -> dict[str, Any]:
    return {"index": choice.index, "delta": delta, "logprobs": None, "finish_reason": None}


def _logprobs(pieces: Sequence[Piece]) -> dict[str, Any]:
    rows = {part: [row for piece in pieces if piece.part is part for row in piece.logprobs] for part in Part}
    return {"content": rows[Part.CONTENT], "reasoning": rows[Part.REASONING], "refusal": None}


def _ids(pieces: Sequence[Piece]) -> dict[str, Any]:
    return {
        "token_ids": [token_id for piece in pieces for token_id in piece.token_ids],
        "token_authors": [author for piece in pieces for author in piece.authors],
    }
