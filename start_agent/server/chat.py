"""``POST /v1/chat/completions``: thoughts, code and outputs in ``reasoning``, the answer in ``content``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fastapi import Request, Response

from start_agent.server.answers import ChatCompletion
from start_agent.server.body import new_router
from start_agent.server.chat_protocol import ChatRequest
from start_agent.server.choices import Choice, Part, Piece
from start_agent.server.errors import ERRORS, about
from start_agent.server.replies import JSON, Reply, ids_of
from start_agent.server.rollout import Rollout, RolloutRequest, rendered, seeds
from start_agent.server.state import State, state_of
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
    """Create a chat completion."""
    state = state_of(request)
    state.check_model(body.model)
    reply = _ChatReply(state, body, await _rollouts(state, body))
    return await reply.answer(state, request, stream=bool(body.stream))


async def _rollouts(state: State, body: ChatRequest) -> list[Rollout]:
    with about("messages"):
        return await _made(state, body)


async def _made(state: State, body: ChatRequest) -> list[Rollout]:
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


class _ChatReply(Reply):
    prefix, whole_object, chunk_object = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def __init__(self, state: State, body: ChatRequest, rollouts: Sequence[Rollout]) -> None:
        super().__init__(state, rollouts, prompts=[0], include_usage=body.include_usage)
        self._logprobs, self._ids = bool(body.logprobs), bool(body.return_token_ids)
        self._prompt = rollouts[0].prompt.token_ids
        self._answering: set[int] = set()  # the choices whose answer has begun
        names = state.options.reasoning_field
        self._names = ("reasoning", "reasoning_content") if names == "both" else (names,)

    def complete(self, choice: Choice, pieces: Sequence[Piece]) -> JSON:
        """See ``Reply``."""
        texts = {part: "".join(piece.text for piece in pieces if piece.part is part) for part in Part}
        message = {"role": "assistant", "content": texts[Part.CONTENT].lstrip(), "refusal": None}
        return {
            "index": choice.index,
            "message": message | self._thoughts(texts[Part.REASONING]),
            "finish_reason": choice.finish_reason,
            "logprobs": _logprobs(pieces) if self._logprobs else None,
            "start_agent": choice.report(),
            **(ids_of(pieces) if self._ids else {}),
        }

    def beginning(self) -> Iterable[JSON]:
        """See ``Reply``."""
        return (_row(choice, {"role": "assistant", "content": ""}) for choice in self.choices)

    def rows(self, choice: Choice, pieces: Sequence[Piece]) -> Iterable[JSON]:
        """See ``Reply``."""
        for piece in pieces:
            text = self._shown(choice, piece)
            rows = self._logprobs and piece.logprobs and piece.part is not Part.MARKER
            if not text and not rows and not (self._ids and piece.token_ids):
                continue
            row = _row(choice, {"content": text} if text and piece.part is Part.CONTENT else self._thoughts(text))
            if rows:
                row["logprobs"] = _logprobs([piece])
            yield row | (ids_of([piece]) if self._ids else {})
        if choice.finished is not None:
            yield _row(choice, {}) | {"finish_reason": choice.finish_reason, "start_agent": choice.report()}

    def beside(self) -> JSON:
        """See ``Reply``."""
        return {"prompt_token_ids": list(self._prompt)} if self._ids else {}

    def _shown(self, choice: Choice, piece: Piece) -> str:
        """The text of a piece as it is streamed: without leading white space of the answer."""
        if piece.part is not Part.CONTENT or choice.index in self._answering:
            return "" if piece.part is Part.MARKER else piece.text
        text = piece.text.lstrip()
        if text:
            self._answering.add(choice.index)
        return text

    def _thoughts(self, text: str) -> JSON:
        return dict.fromkeys(self._names, text) if text else {}


def _row(choice: Choice, delta: JSON) -> JSON:
    return {"index": choice.index, "delta": delta, "logprobs": None, "finish_reason": None}


def _logprobs(pieces: Sequence[Piece]) -> JSON:
    rows = {part: [row for piece in pieces if piece.part is part for row in piece.logprobs] for part in Part}
    return {"content": rows[Part.CONTENT], "reasoning": rows[Part.REASONING], "refusal": None}
