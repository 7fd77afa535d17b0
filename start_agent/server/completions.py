"""``POST /v1/completions``: raw prompts without a chat template, and their continuation as one text."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from fastapi import Request, Response

from start_agent.decoding.solver import Solver
from start_agent.errors import ContextLengthError
from start_agent.server.answers import Completion
from start_agent.server.body import new_router
from start_agent.server.chat_protocol import CompletionRequest
from start_agent.server.choices import Choice, Part, Piece
from start_agent.server.errors import ERRORS, APIError, about, unsupported
from start_agent.server.replies import JSON, Reply, ids_of
from start_agent.server.rollout import LONG, Rollout, RolloutRequest, seeds
from start_agent.server.state import State, state_of
from start_agent.tokens.stopping import StopKind
from start_agent.tokens.tokenizer import Tokenizer

router = new_router()

_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": Completion,
        "description": "the answer, or with ``stream`` events of ``text_completion`` objects",
        "content": {"text/event-stream": {}},
    }
}


@router.post("/completions", responses={**_ANSWERS, **ERRORS})
async def create_completion(request: Request, body: CompletionRequest) -> Response:
    """Continue a text."""
    state = state_of(request)
    state.check_model(body.model)
    if body.echo and body.logprobs is not None:
        raise unsupported("echo", "is not supported with logprobs: prompts have no log-probabilities (loglikelihood)")
    reply = _CompletionReply(state, body, await _rollouts(state, body))
    return await reply.answer(state, request, stream=bool(body.stream))


async def _rollouts(state: State, body: CompletionRequest) -> list[Rollout]:
    with about("prompt"):
        return await _made(state.solver, body)


async def _made(solver: Solver, body: CompletionRequest) -> list[Rollout]:
    settings = body.settings(solver.settings, max_tokens=body.max_tokens, logprobs=body.logprobs)
    found: list[Rollout] = []
    for ids in await _prompts(solver, body):
        prompt = solver.format.raw(ids)
        question = solver.engine.tokenizer.decode(ids)
        found += [
            Rollout(
                solver,
                RolloutRequest(
                    prompt=prompt,
                    question=question,
                    settings=settings,
                    sampling=body.sampling(solver.sampling),
                    seed=seed,
                    first_hint=body.hint,
                ),
            )
            for seed in seeds(body.seed, body.n or 1)
        ]
    return found


async def _prompts(solver: Solver, body: CompletionRequest) -> list[list[int]]:
    """The ids of each prompt. Raises ``APIError``, 400, for an empty prompt or an invalid token id."""
    size = sum(len(prompt) for prompt in body.prompts if isinstance(prompt, str))
    encode = partial(_encoded, solver, body.prompts, special=body.add_special_tokens is not False)
    found = encode() if size < LONG else await asyncio.to_thread(encode)
    if not found or not all(found):
        raise APIError(400, "prompt is empty", param="prompt", code="invalid_value")
    number = len(solver.engine.tokenizer.pieces)
    if any(token_id >= number for ids in found for token_id in ids):
        raise APIError(400, f"prompt: the model has {number} tokens", param="prompt", code="invalid_value")
    return found


def _encoded(solver: Solver, prompts: Sequence[str | list[int]], *, special: bool) -> list[list[int]]:
    tokenizer, most = solver.engine.tokenizer, solver.engine.context_length
    found: list[list[int]] = []
    for prompt in prompts:
        if tokenizer.exceeds(prompt, most) if isinstance(prompt, str) else len(prompt) > most:
            raise ContextLengthError(f"a prompt is longer than the model's context of {most} tokens: shorten it")
        if isinstance(prompt, str):
            prompt = tokenizer.encode_template(prompt, add_special_tokens=special)
        found.append(prompt)
    return found


class _CompletionReply(Reply):
    prefix, whole_object, chunk_object = "cmpl", "text_completion", "text_completion"

    def __init__(self, state: State, body: CompletionRequest, rollouts: Sequence[Rollout]) -> None:
        prompts = range(0, len(rollouts), body.n or 1)
        super().__init__(state, rollouts, prompts=prompts, include_usage=body.include_usage)
        self._tokenizer = state.solver.engine.tokenizer
        self._logprobs, self._ids = body.logprobs is not None, bool(body.return_token_ids)
        self._echo = bool(body.echo)
        self._held = [""] * len(rollouts)  # for each choice: markers that may be its end
        self._sizes = [0] * len(rollouts)  # for each choice: characters so far

    def complete(self, choice: Choice, pieces: Sequence[Piece]) -> JSON:
        """See ``Reply``."""
        rows = [*self._echoed([choice]), *self.rows(choice, pieces)]
        found = {
            **rows[-1],
            "text": "".join(row["text"] for row in rows),
            "logprobs": _joined([row["logprobs"] for row in rows]) if self._logprobs else None,
        }
        return found | self._prompt_ids(choice) | (ids_of(pieces) if self._ids else {})

    def beginning(self) -> Iterable[JSON]:
        """See ``Reply``."""
        return self._echoed(self.choices)

    def rows(self, choice: Choice, pieces: Sequence[Piece]) -> Iterable[JSON]:
        """See ``Reply``."""
        for piece in pieces:
            begin, text = self._sizes[choice.index] + len(self._held[choice.index]), ""
            if piece.part is Part.MARKER:
                self._held[choice.index] += piece.text
            elif piece.text:
                text, self._held[choice.index] = self._held[choice.index] + piece.text, ""
            if text or (self._ids and piece.token_ids) or (self._logprobs and piece.logprobs):
                row = self._row(choice, text)
                if self._logprobs and piece.logprobs:
                    row["logprobs"] = _logprobs(piece, begin)
                yield row | (ids_of([piece]) if self._ids else {})
        if choice.finished is not None:
            ended = {"finish_reason": choice.finish_reason, "start_agent": choice.report()}
            yield self._row(choice, self._last(choice)) | ended

    def _last(self, choice: Choice) -> str:
        """The text held back, without the stop string or end of sequence that ended the text."""
        assert choice.finished is not None
        last = choice.finished.trace.spans[-1]
        if last.cause == StopKind.STOP:
            return ""
        return self._held[choice.index].removesuffix(_end(self._tokenizer, last.token_ids[-1:]))

    def _echoed(self, choices: Iterable[Choice]) -> Iterable[JSON]:
        """The prompts if they are echoed, with their token ids if requested."""
        for choice in choices:
            text = self._tokenizer.decode(self._rollouts[choice.index].prompt.token_ids) if self._echo else ""
            if text or self._ids:
                yield self._row(choice, text) | self._prompt_ids(choice)

    def _row(self, choice: Choice, text: str) -> JSON:
        self._sizes[choice.index] += len(text)
        return {"index": choice.index, "text": text, "logprobs": None, "finish_reason": None}

    def _prompt_ids(self, choice: Choice) -> JSON:
        return {"prompt_token_ids": list(self._rollouts[choice.index].prompt.token_ids)} if self._ids else {}


def _logprobs(piece: Piece, offset: int) -> JSON:
    """The log-probabilities of a piece that begins at this character; inserted tokens have none."""
    found: JSON = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for row in piece.logprobs:
        found["tokens"].append(row["token"])
        found["token_logprobs"].append(row["logprob"])
        found["top_logprobs"].append({top["token"]: top["logprob"] for top in row["top_logprobs"]})
        found["text_offset"].append(offset)
        offset += len(row["token"])
    return found


def _joined(rows: Iterable[JSON | None]) -> JSON:
    found: JSON = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for row in rows:
        for name, values in found.items():
            values += row[name] if row else []
    return found


def _end(tokenizer: Tokenizer, last: Sequence[int]) -> str:
    return tokenizer.decode(last) if last and last[0] in tokenizer.eos_ids else ""
