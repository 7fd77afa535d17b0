"""Options → engine, sandbox, solver, grader, executor: the one place where components are wired together.

Commands, Ray workers, recipes and users all use it, with the same options and the same defaults::

    config = SolverConfig.of(model="Qwen/QwQ-32B", engine="vllm", temperature=0.6)
    async with open_solver(config) as solver:
        trace = await solver.solve("What is 48613 * 7957?")

A ``SolverConfig`` is data: it can be pickled, and ``packed`` adds the content of the files that it names.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field

from hints import Domain, HintLibrary
from sandbox import Sandbox, most_kernels
from start_agent import fields
from start_agent.batch.options import BatchOptions, RayOptions
from start_agent.decoding.hint_files import hint_paths
from start_agent.decoding.limits import SandboxOptions
from start_agent.decoding.settings import DecodingSettings
from start_agent.decoding.solver import Solver
from start_agent.engines import registry
from start_agent.engines.base import Sampling, SamplingOptions
from start_agent.errors import ConfigError
from start_agent.grading.registry import GRADERS, GradingContext
from start_agent.grading.votes import math_value
from start_agent.models import ModelChoice, read_configs, resolve
from start_agent.plugins import Chosen
from start_agent.problem import Problem
from start_agent.strategies import registry as strategies
from start_agent.strategies.base import Question
from start_agent.tokens.dialects import DIALECTS
from start_agent.tokens.templates import ChatOptions, read_template
from start_agent.tokens.thinking import read_families

if TYPE_CHECKING:
    from start_agent.batch.executor import LocalExecutor, RolloutExecutor


class SolveOptions(ChatOptions):
    """Which model to use, and how questions are rendered."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(
        "pocket", description="a name on the hub, a local folder, or the built-in 'pocket' or 'pocket-start'"
    )
    seed: int | None = Field(
        0, ge=0, description="seed of hints and sampling; 'none' samples without seeds, which is faster on vLLM"
    )
    system: str = Field("", description="system message")
    instruction: str | None = Field(
        None, description="sentence after the question (default: asks for a boxed answer; none for 'pocket')"
    )
    hint_files: tuple[Path, ...] = Field(
        (), description="hint file that extends or replaces the built-in library: a path, or a plug-in's name"
    )
    unsafe_no_isolation: bool = Field(
        False, description="DANGEROUS: run the model's code as your own user, without any isolation"
    )


GROUPS: dict[str, type[BaseModel]] = {
    "engine": registry.EngineChoice,
    "model": SolveOptions,
    "decoding": DecodingSettings,
    "sampling": SamplingOptions,
    "sandbox": SandboxOptions,
}
"""The option groups of everything that solves, by title; without those of the chosen engine."""


@dataclass(frozen=True, slots=True)
class SolverConfig:
    """The options of a solver.

    Attributes:
        engine: the engine's name, as ``--engine`` takes it.
        engine_options: that engine's options.
        solve: the model, and how questions are rendered.
        decoding: hints, tools and limits.
        sampling: sampling parameters; unset ones are taken from the model's ``generation_config.json``.
        sandbox: resource limits of the model's code.
        files: contents of the files that the options name, by path; empty if they are read in place.
    """

    engine: str = registry.DEFAULT
    engine_options: Any = None
    solve: SolveOptions = SolveOptions()  # noqa: RUF009 - frozen
    decoding: DecodingSettings = DecodingSettings()  # noqa: RUF009 - frozen
    sampling: SamplingOptions = SamplingOptions()  # noqa: RUF009 - frozen
    sandbox: SandboxOptions = SandboxOptions()  # noqa: RUF009 - frozen
    files: Mapping[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.engine_options is None:
            object.__setattr__(self, "engine_options", registry.ENGINES.find(self.engine).options())

    @classmethod
    def of(cls, **options: Any) -> Self:
        """Build from options named like the flags. Raises ConfigError for an unknown one."""
        fields.refuse_unknown(options, cls.models(options), "options")
        return cls.from_layers(options)

    @classmethod
    def from_layers(cls, *layers: Mapping[str, Any]) -> Self:
        """Build from layered options; later layers override earlier ones, options of other models are ignored.

        Raises:
            ConfigError: an invalid value, no such engine or dialect, or an option that only other engines have.
        """
        engine = registry.ENGINES.choose(fields.build(registry.EngineChoice, *layers).engine, *layers)
        decoding = fields.build(DecodingSettings, *layers)
        DIALECTS.find(decoding.dialect)  # fail before the model is loaded
        return cls(
            engine.name,
            engine.options,
            fields.build(SolveOptions, *layers),
            decoding,
            fields.build(SamplingOptions, *layers),
            fields.build(SandboxOptions, *layers),
        )

    @classmethod
    def models(cls, *layers: Mapping[str, Any]) -> list[type[BaseModel]]:
        """All models whose fields a configuration file or a call may set, including those of every known engine."""
        engine = registry.ENGINES.find(fields.build(registry.EngineChoice, *layers).engine)
        return [*GROUPS.values(), *registry.ENGINES.option_models().values(), engine.options]

    @property
    def groups(self) -> dict[str, BaseModel]:
        """The options by the titles of their groups, as a run's ``config.json`` stores them."""
        return {
            "model": self.solve,
            "decoding": self.decoding,
            "sampling": self.sampling,
            "sandbox": self.sandbox,
            f"{self.engine} engine": self.engine_options,
        }

    @property
    def revision(self) -> str | None:
        """The model's revision, if its engine has such an option."""
        revision: str | None = getattr(self.engine_options, "revision", None)
        return revision

    @property
    def choice(self) -> ModelChoice:
        """The model's location and instruction. Raises ModelError."""
        return resolve(self.solve.model, self.revision)

    @property
    def instruction(self) -> str:
        """The sentence after each question. Raises ModelError."""
        return self.choice.instruction if self.solve.instruction is None else self.solve.instruction

    @property
    def chat(self) -> ChatOptions:
        """The options of the chat template."""
        return ChatOptions(**{name: getattr(self.solve, name) for name in ChatOptions.model_fields})

    @property
    def gpus(self) -> int:
        """How many GPUs the engine uses, on a machine that has GPUs."""
        return registry.ENGINES.find(self.engine).gpus(self.engine_options)

    @property
    def named_files(self) -> list[Path]:
        """The files that the options name, including plug-ins' files. Raises ConfigError."""
        named = (*hint_paths(self.solve.hint_files), self.solve.chat_template, self.solve.think_markers)
        return [path for path in named if path is not None]

    def resolved_sampling(self) -> Sampling:
        """The sampling parameters with the model's defaults filled in. Raises ModelError."""
        generation = read_configs(self.choice.location, self.revision).generation
        return self.sampling.resolved(generation)

    def packed(self) -> Self:
        """A copy with the contents of the files that it names, for other machines. Raises ConfigError."""
        solve = self.solve.model_copy(update={"hint_files": tuple(hint_paths(self.solve.hint_files))})
        try:
            content = {str(path): path.expanduser().read_bytes() for path in self.named_files}
            return replace(self, solve=solve, files=content)
        except OSError as error:
            raise ConfigError(f"cannot read {error.filename}: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class AnswerConfig:
    """The options of answering a question.

    Attributes:
        solver: options of the solver.
        strategy: how traces become an answer.
    """

    solver: SolverConfig
    strategy: Chosen = strategies.SINGLE

    @classmethod
    def of(cls, **options: Any) -> Self:
        """Build from options named like the flags. Raises ConfigError for an unknown one."""
        fields.refuse_unknown(options, cls.models(options), "options")
        return cls.from_layers(options)

    @classmethod
    def from_layers(cls, *layers: Mapping[str, Any]) -> Self:
        """Build from layered options; later layers override earlier ones. Raises ConfigError."""
        chosen = strategies.STRATEGIES.choose(fields.build(strategies.StrategyChoice, *layers).strategy, *layers)
        return cls(SolverConfig.from_layers(*layers), chosen)

    @classmethod
    def models(cls, *layers: Mapping[str, Any]) -> list[type[BaseModel]]:
        """All models whose fields a configuration file or a call may set, including those of every known strategy."""
        chosen = strategies.STRATEGIES.find(fields.build(strategies.StrategyChoice, *layers).strategy)
        own = strategies.STRATEGIES.option_models().values()
        return [*SolverConfig.models(*layers), strategies.StrategyChoice, *own, chosen.options]


@asynccontextmanager
async def open_solver(
    config: SolverConfig, *, sessions: int = 1, on_notice: Callable[[str], None] | None = None
) -> AsyncGenerator[Solver, None]:
    """Open an engine and a sandbox, and yield a solver that uses them.

    Args:
        config: the options.
        sessions: maximum concurrent sandbox sessions.
        on_notice: receives each line to show the user before the first question (``Solver.notices``).

    Raises:
        InputError, HintError: an option, a file or the model is invalid.
        EngineError, SandboxError: the infrastructure failed.
    """
    async with AsyncExitStack() as stack:
        local = _unpacked(config, stack)
        hints = HintLibrary.load(*hint_paths(local.solve.hint_files))
        if local.solve.chat_template is not None:  # fail before the model is loaded
            read_template(local.solve.chat_template)
        if local.solve.think_markers is not None:
            read_families(local.solve.think_markers)
        engine = registry.ENGINES.find(config.engine).make(config.choice.location, config.engine_options)
        box = None
        if config.decoding.tools:
            box = Sandbox(
                config.sandbox.limits, size=sessions, prestart=1, unsafe_no_isolation=config.solve.unsafe_no_isolation
            )
            await stack.enter_async_context(box)
        await stack.enter_async_context(engine)
        solver = Solver(
            engine,
            box,
            settings=config.decoding,
            sampling=config.sampling,
            hints=hints,
            instruction=config.instruction,
            system=config.solve.system,
            chat=local.chat,
            recorded_chat=config.chat,
        )
        if on_notice is not None:
            for line in solver.notices():
                on_notice(line)
        yield solver


def _unpacked(config: SolverConfig, stack: AsyncExitStack) -> SolverConfig:
    """The options with the packed files written to this machine, and their new paths."""
    if not config.files:
        return config
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="start-agent-")))
    places: dict[Path, Path] = {}
    for number, (name, content) in enumerate(config.files.items()):
        places[Path(name)] = folder / f"{number}-{Path(name).name}"
        places[Path(name)].write_bytes(content)
    solve = config.solve
    update = {
        "hint_files": tuple(places[path] for path in solve.hint_files),
        "chat_template": solve.chat_template and places[solve.chat_template],
        "think_markers": solve.think_markers and places[solve.think_markers],
    }
    return replace(config, solve=solve.model_copy(update=update))


def question_for(solver: Solver, text: str) -> Question:
    """A user's question, for a strategy: answers are compared as mathematics; programs are not compared."""
    if solver.settings.domain is Domain.CODE:
        return Question(text)
    return Question(text, partial(math_value, Problem(text, "")))


@asynccontextmanager
async def open_executor(
    config: SolverConfig,
    grader: Chosen,
    batch: BatchOptions,
    *,
    strategy: Chosen = strategies.SINGLE,
    on_notice: Callable[[str], None] | None = None,
) -> AsyncGenerator[LocalExecutor, None]:
    """Open an executor that solves and grades problems in this process. Raises what ``open_solver`` raises."""
    from start_agent.batch.executor import LocalExecutor

    kernels = min(batch.kernels or max(most_kernels() // 2, 1), batch.concurrency)
    entry = GRADERS.find(grader.name)
    async with AsyncExitStack() as stack:
        solver = await stack.enter_async_context(open_solver(config, sessions=kernels, on_notice=on_notice))
        context = GradingContext(solver.engine.tokenizer.decode, kernels, config.solve.unsafe_no_isolation)
        grade = await stack.enter_async_context(entry.open(context, grader.options))
        yield LocalExecutor(
            solver,
            grade,
            seed=config.solve.seed,
            instruction=config.solve.instruction,
            retries=batch.retries,
            strategy=strategies.make(strategy),
            value=entry.value,
            concurrency=batch.concurrency,
        )


async def open_workers(
    stack: AsyncExitStack,
    config: SolverConfig,
    grader: Chosen,
    batch: BatchOptions,
    cluster: RayOptions,
    *,
    strategy: Chosen = strategies.SINGLE,
) -> RolloutExecutor:
    """Open an executor on the workers of a Ray cluster, which share the traces in flight.

    Args:
        stack: closes the workers.
        config, grader, batch, strategy: see ``open_executor``; files that the options name are sent to the workers.
        cluster: the Ray options, with ``ray`` set.
    """
    from start_agent.batch.cluster import connect, count_workers
    from start_agent.batch.ray import RayExecutor

    assert cluster.ray is not None
    stack.enter_context(connect(cluster.ray_address))
    workers, gpus = count_workers(cluster.ray, config.gpus)
    slots = -(-batch.concurrency // workers)
    of_worker = batch.model_copy(update={"concurrency": slots})
    executor = RayExecutor(
        partial(open_executor, config.packed(), grader, of_worker, strategy=strategy),
        workers=workers,
        slots=slots,
        retries=batch.retries,
        restarts=cluster.ray_restarts,
        gpus=gpus,
    )
    return await stack.enter_async_context(executor)
