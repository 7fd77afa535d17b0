"""The solver: one engine, one sandbox and one controller, together growing one trace."""

from __future__ import annotations

import codecs
import secrets
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, aclosing
from functools import cached_property, partial
from itertools import groupby
from typing import Any

from hints import Domain, HintLibrary, Placement
from sandbox import BaseSandbox, Session
from start_agent import __version__
from start_agent.decoding.controller import Controller, Finish, Generate, RunCode
from start_agent.decoding.events import CellFinished, CellStarted, Cost, Event, ModelText, SpanAdded, TraceFinished
from start_agent.decoding.settings import DecodingSettings
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
from start_agent.tokens.markers import Markers, Matcher
from start_agent.tokens.phases import Phase, phase_of
from start_agent.tokens.prompts import ChatFormat, Prompt
from start_agent.tokens.stopping import StopChecker
from start_agent.tokens.templates import ChatOptions
from start_agent.trace import Trace


class Solver:
    """Solves questions, each as one trace; any number of them at once.

    Args:
        engine: open (inside its ``async with``).
        sandbox: open; None where ``settings.tools`` is off.
        settings: what the controller may do; a mapping stands for the ``DecodingSettings`` of these values.
        sampling: how tokens are drawn: all of it as ``Sampling``, or as a mapping or ``SamplingOptions`` what shall be
            other than the model's ``generation_config.json`` says.
        hints: the library; the built-in one where none is given.
        instruction: follows each question in the prompt; unset, what the model is used to, which for most is a
            sentence that asks for a boxed answer.
        system: the system message; none where empty.
        chat: of the chat template and the think markers; a mapping as well.
        recorded_chat: what traces record in place of ``chat``, where its files have other paths than the user's.

    Raises:
        ConfigError: the engine is not open, there are tools without a sandbox or hints that the library lacks, or an
            option is unknown.
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
        _check_hints(self.settings, self.hints)

    @cached_property
    def format(self) -> ChatFormat:
        """How prompts are made for the engine's model. Raises ``ConfigError``, see ``ChatFormat``."""
        return ChatFormat(self.engine.tokenizer, self.chat)

    def notices(self) -> list[str]:
        """What the user should know before the first question: where the sampling is from, a thinking that is off."""
        generation, lines = self.engine.tokenizer.generation, list[str]()
        asked = model_sampling(generation)
        if not self._sampling_given and asked != Sampling():
            values = ", ".join(f"{name.replace('_', '-')} {value:g}" for name, value in self.sampling)
            lines.append(f"sampling with {values}: what is not given is from the model's generation_config.json")
        missing = not_applied(generation)
        if missing and self.sampling.temperature:
            values = ", ".join(f"{name} {value}" for name, value in missing.items())
            lines.append(f"the model's generation_config.json also asks for {values}, which is not applied")
        return [*lines, *self.format.notices(self.system)]

    def changed(self, *, settings: DecodingSettings | None = None, instruction: str | None = None) -> Solver:
        """A solver like this one, with other settings or another instruction."""
        return Solver(
            self.engine,
            self.sandbox,
            settings=settings or self.settings,
            sampling=self.sampling,
            hints=self.hints,
            instruction=self.instruction if instruction is None else instruction,
            system=self.system,
            chat=self.chat,
            recorded_chat=self._recorded_chat,
        )

    async def solve(self, question: str, *, seed: int | None = 0) -> Trace:
        """Grow a trace to its end. Raises what ``stream`` raises."""
        async with aclosing(self.stream(question, seed=seed, live=False)) as events:
            async for event in events:
                if isinstance(event, TraceFinished):
                    return event.trace
        raise AssertionError("a stream ended without a trace")

    async def stream(self, question: str, *, seed: int | None = 0, live: bool = True) -> AsyncGenerator[Event, None]:
        """Grow a trace and tell of it; the last event is ``TraceFinished``.

        Closing the generator early cancels what is under way: no kernel and no cached state is left behind.

        Args:
            question: what is asked.
            seed: decides the hints, the sampling and the random numbers of cells. None: sampling has no seed, and that
                of the others is drawn anew; it is stored in the trace, which can be replayed like any other.
            live: tell of the model's text as it comes (``ModelText``), not only of whole spans.

        Raises:
            PromptError: the question makes no prompt for this model.
            EngineError, SandboxError: the infrastructure failed; there is no trace.
        """
        tokenizer, seeded = self.engine.tokenizer, seed is not None
        seed = secrets.randbits(63) if seed is None else seed
        prompt = self.format.prompt(question, system=self.system, instruction=self.instruction)
        matcher = self._matcher(self.settings.markers(*prompt.think_ends, think_start=prompt.think_start))
        controller = Controller(
            prompt,
            tokenizer=tokenizer,
            matcher=matcher,
            hints=self.hints,
            settings=self.settings,
            seed=seed,
            seeded=seeded,
            context_length=self.engine.context_length,
        )
        trace = Trace(meta=self._meta(question, seed, prompt) | ({} if seeded else {"seeded": False}))
        trace_id, cost = uuid.uuid4().hex, Cost()
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.engine.release, trace_id)
            session: Session | None = None
            step = controller.start()
            while trace.outcome is None:
                for span in step.spans:
                    trace.append(span)
                    yield SpanAdded(span, tokenizer.decode(span.token_ids))
                match step.action:
                    case Generate() as action:
                        new_checker = partial(StopChecker, matcher, action.state, action.conditions, action.recent)
                        request = TurnRequest(
                            trace_id, trace.token_ids, self.sampling, action.seed, action.max_tokens, new_checker
                        )
                        async with aclosing(self._turn(request, live)) as items:
                            async for item in items:
                                if isinstance(item, Turn):
                                    cost.add(len(request.token_ids), item)
                                    step = controller.turn_ended(item.token_ids, item.stop)
                                else:
                                    yield item
                    case RunCode(code):
                        yield CellStarted(code)
                        session = session or await self._open_session(stack, trace, seed)
                        result = await session.execute(code, timeout=self.settings.cell_timeout)
                        yield CellFinished(result)
                        step = controller.tool_returned(result.text, result.outcome.value)
                    case Finish(outcome, answer, answer_begins):
                        trace.outcome, trace.answer, trace.answer_begins = outcome, answer, answer_begins
        trace.decode = tokenizer.decode
        yield TraceFinished(trace, cost)

    async def _turn(self, request: TurnRequest, live: bool) -> AsyncGenerator[ModelText | Turn, None]:
        """A turn of the engine; where live, its ids are told as text, each event within one phase."""
        if not live:
            yield await self.engine.generate(request)
            return
        checker = request.new_checker()
        utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        async with aclosing(self.engine.stream(request)) as items:
            async for item in items:
                if isinstance(item, Turn):
                    yield item
                    return
                for phase, run in groupby(item, key=lambda token_id: _phase_of_token(checker, token_id)):
                    token_ids = tuple(run)
                    yield ModelText(token_ids, utf8.decode(self.engine.tokenizer.bytes_of(token_ids)), phase)

    async def _open_session(self, stack: AsyncExitStack, trace: Trace, seed: int) -> Session:
        """The trace's kernel, taken when its first cell is there."""
        assert self.sandbox is not None, "a controller without tools runs no code"
        trace.meta["sandbox"] = self.sandbox.isolation
        return await stack.enter_async_context(self.sandbox.session(seed=derive_seed(seed, "cells")))

    def _matcher(self, markers: Markers) -> Matcher:
        if markers not in self._matchers:
            self._matchers[markers] = Matcher(self.engine.tokenizer, markers)
        return self._matchers[markers]

    def _meta(self, question: str, seed: int, prompt: Prompt) -> dict[str, Any]:
        return {
            "version": __version__,
            "question": question,
            "seed": seed,
            "engine": self.engine.name,
            "model": self.engine.model,
            "context_length": self.engine.context_length,
            "sampling": self.sampling.model_dump(mode="json"),
            "settings": self.settings.model_dump(mode="json"),
            "instruction": self.instruction,
            "system": self.system,
            "thinking": prompt.thinking,
            "think_end": prompt.think_ends[0],
        } | self._more_meta(prompt)

    def _more_meta(self, prompt: Prompt) -> dict[str, Any]:
        """What most traces do not need."""
        chat = self._recorded_chat.model_dump(mode="json", exclude_defaults=True)
        if not self.format.prints_day:
            chat.pop("chat_template_date", None)
        return {
            **({"think_ends": list(prompt.think_ends)} if len(prompt.think_ends) > 1 else {}),
            **({"think_start": prompt.think_start} if prompt.think_start else {}),
            **({"chat": chat} if chat else {}),
            **({"commit": self.engine.tokenizer.commit} if self.engine.tokenizer.commit else {}),
        }


def _phase_of_token(checker: StopChecker, token_id: int) -> Phase:
    """The phase in which the token begins; the stop checker moves on over it."""
    phase = phase_of(checker.state)
    checker.push(token_id)
    return phase


def _check_hints(settings: DecodingSettings, library: HintLibrary) -> None:
    """Refuse, before any trace, settings for which the library has no hint."""
    needed = [
        placement
        for placement, wanted in (
            (Placement.CONNECTIVE, settings.max_hints),
            (Placement.END_OF_THINK, settings.end_of_think_hints),
        )
        if settings.hints and settings.tools and wanted
    ]
    template = settings.template if settings.domain is Domain.CODE else None
    for placement in needed:
        if not library.select(settings.domain, placement, template=template):
            raise ConfigError(
                f"the hint library has no {settings.domain} hint for the placement {placement}: add one to your file"
            )
