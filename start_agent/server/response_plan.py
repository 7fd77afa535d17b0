"""Plans a response: from the request to the conversation, the rollout, the container and the response object."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from start_agent.decoding.settings import DecodingSettings
from start_agent.engines.base import Sampling
from start_agent.errors import QuestionError
from start_agent.seeds import derive_seed
from start_agent.server.containers import Container, ContainerNotFound
from start_agent.server.errors import APIError, about, unsupported
from start_agent.server.extension import RequestExtension
from start_agent.server.response_input import last_container, listed, messages
from start_agent.server.response_items import JSON, new_id
from start_agent.server.responses_protocol import ResponsesRequest
from start_agent.server.rollout import Rollout, RolloutRequest, rendered
from start_agent.server.state import State
from start_agent.server.thinking import chat_options
from start_agent.tokens.conversations import THOUGHTS
from start_agent.tokens.prompts import ChatFormat, Prompt
from start_agent.tokens.templates import ChatOptions, ChatTemplate
from start_agent.tokens.tokenizer import Message

_KEEP_THOUGHTS = {"preserve_thinking": True, "clear_thinking": False}
"""Variables with which templates (Qwen3.5's and later, GLM-4.7's and later) keep the thoughts of earlier turns."""

_LOGPROBS = "message.output_text.logprobs"


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a response.

    Attributes:
        rollout: the rollout to run.
        envelope: the fields of the response that do not depend on the outcome.
        items: the input items of the request.
        container: the claimed container for its cells; None if no code is run.
    """

    rollout: Rollout
    envelope: JSON
    items: list[JSON]
    container: Container | None


@dataclass(slots=True)
class Planner:
    """Makes the plan of one request.

    Args:
        state: the server's state.
        client: the client.
        body: the request.
        history: the earlier items of the conversation.
        held: resources to release when the response has ended; the container is added to it.
    """

    state: State
    client: str
    body: ResponsesRequest
    history: Sequence[JSON]
    held: ExitStack

    async def plan(self) -> Plan:
        """Make the plan. Raises ``APIError``: the request is invalid."""
        with about("input"):
            return await self._made()

    async def _made(self) -> Plan:
        items = listed(self.body.input)
        everything = [*self.history, *items]
        settings, chat, solver = self._settings(), self._chat(), self.state.solver
        found = self._messages(everything)
        if self.body.truncation == "auto":
            found = await asyncio.to_thread(self._fitting, found, solver.changed(chat=chat).format)
        prompt = await rendered(solver, found, chat=chat, instruction=self.state.instruction)
        context = self._check_context(found, prompt)
        container = self._container(everything) if settings.tools else None
        request = RolloutRequest(
            messages=found,
            prompt=prompt,
            settings=settings,
            sampling=self._sampling(),
            chat=chat,
            instruction=self.state.instruction,
            seed=self.body.seed,
            session=None if container is None else container.session,
            first_hint=self._asked.hint,
        )
        rollout = Rollout(solver, request)
        return Plan(rollout, self._envelope(rollout, context), items, container)

    def _settings(self) -> DecodingSettings:
        body, asked = self.body, self._asked
        given = asked.given()
        if "max_tool_calls" in given and body.max_tool_calls is not None:
            raise APIError(400, "max_tool_calls is given twice", param="start_agent.max_tool_calls")
        refused = body.tools == [] or body.tool_choice == "none"
        if given.get("tools") and refused:
            raise APIError(400, "start_agent.tools and tools contradict each other", param="start_agent.tools")
        if given.get("tools") is False and body.tools and not refused:
            raise APIError(400, "tools and start_agent.tools contradict each other", param="tools")
        wanted = _LOGPROBS in (body.include or ()) or body.top_logprobs is not None
        return asked.settings(
            self.state.solver.settings,
            tools=False if refused else (True if body.tools else None),
            max_tool_calls=body.max_tool_calls,
            max_tokens=body.max_output_tokens,
            logprobs=(body.top_logprobs or 0) if wanted else None,
        )

    @property
    def _asked(self) -> RequestExtension:
        return self.body.start_agent or RequestExtension()

    def _sampling(self) -> Sampling:
        names = ("temperature", "top_p", "top_k", "min_p")
        given = {name: getattr(self.body, name) for name in names if getattr(self.body, name) is not None}
        return self.state.solver.sampling.model_copy(update=given)

    def _chat(self) -> ChatOptions:
        """The variables of the template: the request's, and those that keep earlier thoughts."""
        solver, body = self.state.solver, self.body
        renderer, keep = solver.format.renderer, dict[str, bool]()
        if self._context == "all_turns" and isinstance(renderer, ChatTemplate):
            keep = {name: value for name, value in _KEEP_THOUGHTS.items() if renderer.uses(name)}
        variables = keep | (body.chat_template_kwargs or {})
        effort = None if body.reasoning is None else body.reasoning.effort
        return chat_options(solver, effort=effort, variables=variables, param="reasoning.effort")

    @property
    def _context(self) -> str:
        return (self.body.reasoning and self.body.reasoning.context) or "auto"

    def _messages(self, items: Sequence[JSON]) -> list[Message]:
        found = messages(items, thoughts=self._context != "current_turn", dialect=self.state.solver.dialect)
        if self.body.instructions:
            found.insert(0, {"role": "system", "content": self.body.instructions})
        return found

    def _fitting(self, found: Sequence[Message], chat_format: ChatFormat) -> list[Message]:
        """Drop the first turns until the conversation fits into the context, with room for an answer."""
        room = self.state.solver.engine.context_length
        room -= min(self.body.max_output_tokens or room, room // 2)
        head = [message for message in found if message["role"] in ("system", "developer")]
        rest = [message for message in found if message["role"] not in ("system", "developer")]
        starts = [at for at, message in enumerate(rest) if message["role"] == "user"]
        fewest, most = 0, max(0, len(starts) - 1)  # number of dropped turns
        while fewest < most:
            middle = (fewest + most) // 2
            if self._fits([*head, *rest[starts[middle] :]], chat_format, room):
                most = middle
            else:
                fewest = middle + 1
        return [*head, *rest[starts[fewest] :]] if fewest else list(found)

    def _fits(self, found: Sequence[Message], chat_format: ChatFormat, room: int) -> bool:
        try:
            prompt = chat_format.prompt(found, system=self.state.solver.system, most_tokens=room)
        except QuestionError:
            return False
        return len(prompt.token_ids) <= room

    def _check_context(self, found: Sequence[Message], prompt: Prompt) -> str:
        """The actual ``reasoning.context`` of the prompt. Raises ``APIError`` if the requested one is impossible."""
        thoughts, shown = sum(THOUGHTS in message for message in found), prompt.thoughts_shown
        if self._context == "all_turns" and shown < thoughts:
            reason = "cannot be all_turns: the model's chat template drops earlier thoughts"
            raise unsupported("reasoning.context", reason)
        if not thoughts:
            return self._context
        return "all_turns" if shown == thoughts else "current_turn"

    def _container(self, items: Sequence[JSON]) -> Container:
        """The container that the request names, or that of the last cell if it lives and is free, or a new one."""
        containers = self.state.containers
        if containers is None:
            raise unsupported("tools", "cannot be: this server runs no code")
        named = self.body.tools[0].container if self.body.tools else None
        if isinstance(named, str):
            return self._claimed(containers.get(self.client, named))
        before = last_container(items)
        if before is not None:
            try:
                found = containers.get(self.client, before)
            except ContainerNotFound:
                pass
            else:
                if not found.busy:
                    return self._claimed(found)
        seed = None if self.body.seed is None else derive_seed(self.body.seed, "cells")
        return self._claimed(containers.create_for_response(self.client, seed=seed, lost=before is not None))

    def _claimed(self, container: Container) -> Container:
        assert self.state.containers is not None
        self.state.containers.claim(container)
        self.held.callback(self.state.containers.release, container)
        return container

    def _envelope(self, rollout: Rollout, context: str) -> JSON:
        body, solver = self.body, rollout.solver
        conversation = conversation_id(body)
        tool: JSON = {"type": "code_interpreter", "container": {"type": "auto"}}
        if body.tools:
            tool = body.tools[0].model_dump(exclude_none=True)
        return {
            "id": new_id("resp"),
            "object": "response",
            "created_at": int(time.time()),
            "model": self.state.model,
            "instructions": body.instructions,
            "tools": [tool] if solver.settings.tools else [],
            "tool_choice": body.tool_choice or "auto",
            "parallel_tool_calls": False if body.parallel_tool_calls is None else body.parallel_tool_calls,
            "max_tool_calls": body.max_tool_calls,
            "max_output_tokens": body.max_output_tokens,
            "temperature": solver.sampling.temperature,
            "top_p": solver.sampling.top_p,
            "top_logprobs": body.top_logprobs,
            "reasoning": {"effort": body.reasoning and body.reasoning.effort, "summary": None, "context": context},
            "text": {"format": {"type": "text"}},
            "truncation": body.truncation or "disabled",
            "previous_response_id": body.previous_response_id,
            "conversation": None if conversation is None else {"id": conversation},
            "metadata": body.metadata or {},
            "background": False,
            "service_tier": "default",
            "user": body.user,
            "safety_identifier": body.safety_identifier,
            "prompt_cache_key": body.prompt_cache_key,
        }


def conversation_id(body: ResponsesRequest) -> str | None:
    """The conversation that a request joins. Raises ``APIError`` if it contradicts other parameters."""
    given = body.conversation
    if given is None:
        return None
    if body.previous_response_id is not None:
        raise APIError(400, "conversation and previous_response_id exclude each other", param="conversation")
    if body.store is False:
        raise APIError(400, "a response in a conversation is always stored: omit store", param="store")
    return given if isinstance(given, str) else given.id
