"""The solver: generates traces with an engine and a sandbox, one controller per trace."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, aclosing
from functools import cached_property, partial
from typing import Any, Unpack

from hints import HintLibrary
from sandbox import BaseSandbox, Session
from start_agent import __version__
from start_agent.decoding.actions import Finish, Generate, RunCode
from start_agent.decoding.controller import Controller
from start_agent.decoding.events import CellFinished, CellStarted, Cost, Event, SpanAdded, TraceFinished
from start_agent.decoding.live import read_turn
from start_agent.decoding.settings import DecodingSettings
from start_agent.decoding.trace_options import TraceOptions, check_hints, first_hint_of
from start_agent.engines.base import (
    Engine,
    Sampling,
    SamplingOptions,
    Turn,
    TurnRequest,
    model_sampling,
    not_applied,
)
from start_agent.errors import ConfigError
from start_agent.fields import coerce
from start_agent.seeds import derive_seed
from start_agent.tokens.dialects import DIALECTS, FENCES
from start_agent.tokens.markers import Markers, Matcher
from start_agent.tokens.prompts import ChatFormat, Prompt
from start_agent.tokens.stopping import StopChecker
from start_agent.tokens.templates import ChatOptions
from start_agent.trace import Trace

_MAX_MATCHERS = 32  # cached; requests may have their own connectives and languages


class Solver:
    """Solves questions, each as one trace; any number of them concurrently.

    Args:
        engine: an open engine (inside its ``async with``).
        sandbox: an open sandbox; None if ``settings.tools`` is off.
        settings: ``DecodingSettings``, or a mapping of its fields.
        sampling: ``Sampling`` sets every parameter; a mapping or ``SamplingOptions`` overrides the model's
            ``generation_config.json``.
        hints: the hint library; the built-in one by default.
        instruction: follows each question in the prompt; by default the model's own, which for most models asks for a
            boxed answer.
        system: the system message; none if empty.
        chat: options of the chat template and the think markers, or a mapping of them.
        recorded_chat: recorded in traces instead of ``chat``, whose files may be temporary copies.

    Raises:
        ConfigError: the engine is not open, tools are on without a sandbox, the library lacks hints that the settings
            need, an option is unknown, or there is no such dialect.
    """

    def __init__(
        self,
        engine: Engine,
        sandbox: BaseSandbox | None = None,
        *,
        settings: DecodingSettings | Mapping[str, Any] | None = None,
        sampling: Sampling | SamplingOptions | Mapping[str, Any] | None = None,
        hints: HintLibrary | None = None,
        instruction: str | None = None,
        system: str = "",
        chat: ChatOptions | Mapping[str, Any] | None = None,
        recorded_chat: ChatOptions | None = None,
    ) -> None:
        if not hasattr(engine, "tokenizer"):
            raise ConfigError("the engine is not open: make the solver inside its `async with`")
        self.engine, self.sandbox = engine, sandbox
        self.settings = coerce(DecodingSettings, settings)
        self.dialect = DIALECTS.find(self.settings.dialect)
        self._sampling_given = isinstance(sampling, Sampling)
        if isinstance(sampling, Sampling):
            self.sampling = sampling
        else:
            self.sampling = coerce(SamplingOptions, sampling).resolved(engine.tokenizer.generation)
        self.chat = coerce(ChatOptions, chat)
        self._recorded_chat = recorded_chat or self.chat
        self.hints = HintLibrary.builtin() if hints is None else hints
        self.instruction = engine.instruction if instruction is None else instruction
        self.system = system
        self._matchers: dict[Markers, Matcher] = {}
        if self.settings.tools and sandbox is None:
            raise ConfigError("tools are on but there is no sandbox: give one, or set tools=False")
        check_hints(self.settings, self.hints)

    @cached_property
    def format(self) -> ChatFormat:
        """Renders prompts for the engine's model. Raises ``ConfigError``, see ``ChatFormat``."""
        return ChatFormat(self.engine.tokenizer, self.chat)

    def notices(self) -> list[str]:
        """Lines to show the user before the first question: defaults from the model's files, thinking that is off."""
        generation, lines = self.engine.tokenizer.generation, list[str]()
        asked = model_sampling(generation)
        if not self._sampling_given and asked != Sampling():
            values = ", ".join(f"{name.replace('_', '-')} {value:g}" for name, value in self.sampling)
            lines.append(f"sampling with {values}: defaults are from the model's generation_config.json")
        missing = not_applied(generation)
        if missing and self.sampling.temperature:
            values = ", ".join(f"{name} {value}" for name, value in missing.items())
            lines.append(f"the model's generation_config.json also asks for {values}, which is not applied")
        return [*lines, *self.format.notices(self.system)]

    def changed(
        self,
        *,
        settings: DecodingSettings | None = None,
        sampling: Sampling | SamplingOptions | Mapping[str, Any] | None = None,
        instruction: str | None = None,
        system: str | None = None,
        chat: ChatOptions | Mapping[str, Any] | None = None,
    ) -> Solver:
        """A copy of this solver with other options; cheap enough for every request.

        Both share the engine, the sandbox, the hints, the matchers and, if ``chat`` is equal, the chat format.

        Args:
            settings: replaces this solver's settings; the same holds for the other arguments.
            sampling: see the class: a mapping or ``SamplingOptions`` overrides the model's ``generation_config.json``.
            instruction: see the class.
            system: see the class.
            chat: see the class.

        Raises:
            ConfigError: see the class.
        """
        chat = self.chat if chat is None else coerce(ChatOptions, chat)
        other = Solver(
            self.engine,
            self.sandbox,
            settings=self.settings if settings is None else settings,
            sampling=self.sampling if sampling is None else sampling,
            hints=self.hints,
            instruction=self.instruction if instruction is None else instruction,
            system=self.system if system is None else system,
            chat=chat,
            recorded_chat=self._recorded(chat),
        )
        other._sampling_given = self._sampling_given if sampling is None else other._sampling_given
        other._matchers = self._matchers
        if chat == self.chat:
            other.format = self.format
        return other

    def _recorded(self, chat: ChatOptions) -> ChatOptions:
        """The chat options to record in traces: the user's own path for each file that is the same as this solver's."""
        same = ("chat_template", "think_markers")
        paths = {
            name: getattr(self._recorded_chat, name) for name in same if getattr(chat, name) == getattr(self.chat, name)
        }
        return chat.model_copy(update=paths)

    async def solve(
        self, question: str | None = None, *, seed: int | None = 0, **options: Unpack[TraceOptions]
    ) -> Trace:
        """Generate a trace to its end. Takes the arguments of ``stream``, and raises what it raises."""
        async with aclosing(self.stream(question, seed=seed, live=False, **options)) as events:
            async for event in events:
                if isinstance(event, TraceFinished):
                    return event.trace
        raise AssertionError("a stream ended without a trace")

    async def stream(
        self,
        question: str | None = None,
        *,
        seed: int | None = 0,
        live: bool = True,
        **options: Unpack[TraceOptions],
    ) -> AsyncGenerator[Event, None]:
        """Generate a trace and yield its events; the last one is ``TraceFinished``.

        Closing the generator early cancels the trace. It leaves no kernel and no cached state behind, except what the
        caller keeps (``session``, ``keep``).

        Args:
            question: the question; None with ``messages``.
            seed: decides the hints, the sampling and the random numbers of cells. None: sampling has no seed, and a
                random seed is drawn for the rest; the trace stores it and can be replayed like any other. A given
                session keeps the random state that it was opened with.
            live: yield the model's text as it is generated (``ModelText``), not only whole spans.
            options: see ``TraceOptions``.

        Raises:
            PromptError: the question or the conversation cannot be rendered for this model, or ``first_hint`` is given
                while thinking is off.
            ConfigError: ``first_hint`` looks like an id and is none of the library.
            ValueError: both a question and messages are given, or none of question, messages and prompt.
            EngineError, SandboxError: the infrastructure failed; there is no trace.
        """
        tokenizer, seeded = self.engine.tokenizer, seed is not None
        seed = secrets.randbits(63) if seed is None else seed
        prompt, asked = self._prompt(question, options)
        matcher = self.matcher(prompt)
        first_hint = first_hint_of(options.get("first_hint"), self.hints, self.dialect)
        controller = Controller(
            prompt,
            tokenizer=tokenizer,
            matcher=matcher,
            hints=self.hints,
            settings=self.settings,
            seed=seed,
            seeded=seeded,
            context_length=self.engine.context_length,
            first_hint=first_hint,
            dialect=self.dialect,
        )
        trace = Trace(meta=self._meta(asked, seed, prompt) | ({} if seeded else {"seeded": False}))
        if first_hint is not None:
            trace.meta["first_hint"] = {"text": first_hint.text, "cause": first_hint.cause}
        trace_id, cost = options.get("trace_id") or uuid.uuid4().hex, Cost()
        async with AsyncExitStack() as stack:
            if not options.get("keep"):
                stack.push_async_callback(self.engine.release, trace_id)
            session = options.get("session")
            if session is not None:
                trace.meta["shared_session"] = True
            step = controller.start()
            while trace.outcome is None:
                for span in step.spans:
                    trace.append(span)
                    yield SpanAdded(span, tokenizer.decode(span.token_ids))
                match step.action:
                    case Generate() as action:
                        new_checker = partial(StopChecker, matcher, action.state, action.conditions, action.recent)
                        request = TurnRequest(
                            trace_id,
                            trace.token_ids,
                            self.sampling,
                            action.seed,
                            action.max_tokens,
                            new_checker,
                            self.settings.logprobs,
                        )
                        async with aclosing(read_turn(self.engine, request, live=live)) as items:
                            async for item in items:
                                if isinstance(item, Turn):
                                    cost.add(len(request.token_ids), item)
                                    step = controller.turn_ended(item.token_ids, item.stop, item.logprobs)
                                else:
                                    yield item
                    case RunCode(code):
                        yield CellStarted(code)
                        session = session or await self._open_session(stack, seed)
                        trace.meta["sandbox"] = self._isolation
                        result = await session.execute(code, timeout=self.settings.cell_timeout)
                        yield CellFinished(result)
                        step = controller.tool_returned(result.text, result.outcome.value)
                    case Finish(outcome, answer, answer_begins):
                        trace.outcome, trace.answer, trace.answer_begins = outcome, answer, answer_begins
        trace.decode = tokenizer.decode
        yield TraceFinished(trace, cost)

    async def _open_session(self, stack: AsyncExitStack, seed: int) -> Session:
        """Open the trace's own kernel; called for its first cell."""
        assert self.sandbox is not None, "a controller without tools runs no code"
        return await stack.enter_async_context(self.sandbox.session(seed=derive_seed(seed, "cells")))

    @property
    def _isolation(self) -> str:
        assert self.sandbox is not None, "a controller without tools runs no code"
        return self.sandbox.isolation

    def _prompt(self, question: str | None, options: TraceOptions) -> tuple[Prompt, dict[str, Any]]:
        """The prompt, and what the trace's ``meta`` stores of the question."""
        messages, instruction, prompt = options.get("messages"), options.get("instruction"), options.get("prompt")
        if (question is None) == (messages is None) and (prompt is None or question is not None):
            raise ValueError("give a question or messages, not both")
        if messages is None:
            question, raw = question or "", question is None
            instruction = "" if raw else self.instruction if instruction is None else instruction
            prompt = prompt or self.format.prompt(question, system=self.system, instruction=instruction)
            return prompt, {"question": question, "instruction": instruction, "system": "" if raw else self.system}
        prompt = prompt or self.format.prompt(messages, system=self.system, instruction=instruction or "")
        last = next((message["content"] for message in reversed(messages) if message["role"] == "user"), "")
        asked = {"question": last, "instruction": instruction or "", "system": self.system}
        return prompt, asked | {"messages": [dict(message) for message in messages]}

    def matcher(self, prompt: Prompt) -> Matcher:
        """The matcher of the markers that may follow this prompt."""
        return self._matcher(
            self.settings.markers(*prompt.think_ends, think_start=prompt.think_start, dialect=self.dialect)
        )

    def _matcher(self, markers: Markers) -> Matcher:
        matcher = self._matchers.pop(markers, None) or Matcher(self.engine.tokenizer, markers)
        self._matchers[markers] = matcher  # most recently used last
        if len(self._matchers) > _MAX_MATCHERS:
            del self._matchers[next(iter(self._matchers))]
        return matcher

    def _meta(self, asked: dict[str, Any], seed: int, prompt: Prompt) -> dict[str, Any]:
        return {
            "version": __version__,
            "question": asked["question"],
            "seed": seed,
            "engine": self.engine.name,
            "model": self.engine.model,
            "context_length": self.engine.context_length,
            "sampling": self.sampling.model_dump(mode="json"),
            "settings": self.settings.model_dump(mode="json"),
            "instruction": asked["instruction"],
            "system": asked["system"],
            "thinking": prompt.thinking,
            "think_end": prompt.think_ends[0],
            **({"messages": asked["messages"]} if "messages" in asked else {}),
        } | self._more_meta(prompt)

    def _more_meta(self, prompt: Prompt) -> dict[str, Any]:
        """Entries of ``meta`` that only some traces have."""
        chat = self._recorded_chat.model_dump(mode="json", exclude_defaults=True)
        if not self.format.prints_day:
            chat.pop("chat_template_date", None)
        return {
            **({"think_ends": list(prompt.think_ends)} if len(prompt.think_ends) > 1 else {}),
            **({"think_start": prompt.think_start} if prompt.think_start else {}),
            **({"think_opens": prompt.think_opens} if prompt.think_opens else {}),
            **({"dialect": self.dialect.to_json()} if self.dialect != FENCES else {}),
            **({"chat": chat} if chat else {}),
            **({"commit": self.engine.tokenizer.commit} if self.engine.tokenizer.commit else {}),
        }
