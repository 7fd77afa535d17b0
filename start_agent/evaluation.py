"""A set of problems → a run directory: the implementation of ``start-agent batch`` and ``start_agent.evaluate``.

Running it again with the same options computes only what is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field

from hints import Domain
from start_agent import fields
from start_agent.analysis.summary import Summary, summarize
from start_agent.batch.options import BatchOptions, RayOptions
from start_agent.batch.progress import Progress
from start_agent.batch.resume import ResumeRules
from start_agent.batch.runner import has_pending, run_at
from start_agent.batch.store import RunDirectory, read_note
from start_agent.build import GROUPS, AnswerConfig, SolverConfig, open_executor, open_workers
from start_agent.errors import ConfigError
from start_agent.files import file_digest
from start_agent.grading.registry import GRADERS, GraderChoice, find_grader
from start_agent.models import local_digests
from start_agent.plugins import Chosen, NoOptions
from start_agent.problem import Kind
from start_agent.strategies.registry import SINGLE, STRATEGIES, StrategyChoice
from start_agent.tasks import Task, resolve_task, stream
from start_agent.tasks.files import data_files
from start_agent.tasks.loading import POCKET_COUNT
from start_agent.tasks.options import DataOptions
from start_agent.versions import versions

if TYPE_CHECKING:
    from sandbox import BaseSandbox
    from start_agent.batch.executor import RolloutExecutor


class RunOptions(BaseModel):
    """Where a run is stored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output_dir: Path = Field(description="the run directory: a new one, or that of the same run to resume it")


RUN_GROUPS: dict[str, type[BaseModel]] = {
    "run": RunOptions,
    "batch": BatchOptions,
    "data": DataOptions,
    "grader": GraderChoice,
    "strategy": StrategyChoice,
    "ray": RayOptions,
}
"""The option groups of a run by title, without those of its solver and of the chosen grader and strategy."""

_PROMPT = "prompt"  # the entry of config.json that identifies the prompts


@dataclass(frozen=True, slots=True)
class RunConfig:
    """The options of a run.

    Attributes:
        solver: options of the solver.
        data: which problems.
        grader: how answers are graded.
        strategy: how traces become an answer.
        batch: samples per problem, concurrency, fault tolerance.
        ray: whether to run on a Ray cluster.
    """

    solver: SolverConfig
    data: DataOptions
    grader: Chosen
    strategy: Chosen = SINGLE
    batch: BatchOptions = BatchOptions()  # noqa: RUF009 - frozen
    ray: RayOptions = RayOptions()  # noqa: RUF009 - frozen

    @classmethod
    def of(cls, **options: Any) -> Self:
        """Build from options named like the flags. Raises ConfigError for an unknown one."""
        fields.refuse_unknown(options, cls.models(options), "options")
        return cls.from_layers(options)

    @classmethod
    def from_layers(cls, *layers: Mapping[str, Any]) -> Self:
        """Build from layered options; later layers override earlier ones, options of other models are ignored.

        For a code task, ``domain`` defaults to code.

        Raises:
            ConfigError: an invalid value, no such engine, task, grader or strategy, an option of another entry, a
                grader for another kind of problem, or a strategy that compares answers with a grader that cannot.
        """
        data = fields.build(DataOptions, *layers)
        task = resolve_task(data)
        if task.kind is Kind.CODE and not any("domain" in layer for layer in layers):
            layers = (*layers, {"domain": Domain.CODE})
        answering = AnswerConfig.from_layers(*layers)
        return cls(
            answering.solver,
            data.seeded(answering.solver.solve.seed, shuffles=task.shuffles),
            _grader(task, answering.strategy, layers),
            answering.strategy,
            fields.build(BatchOptions, *layers),
            fields.build(RayOptions, *layers),
        )

    @classmethod
    def models(cls, *layers: Mapping[str, Any]) -> list[type[BaseModel]]:
        """All models whose fields a configuration file or a call may set."""
        chosen = fields.build(GraderChoice, *layers).grader
        own = [] if chosen is None else [GRADERS.find(chosen).options]
        return [*AnswerConfig.models(*layers), *RUN_GROUPS.values(), *GRADERS.option_models().values(), *own]

    @property
    def total(self) -> int | None:
        """Total number of traces: exact for generated problems, an upper bound for loaded ones; None if unknown."""
        problems = self.data.limit or (POCKET_COUNT if resolve_task(self.data).make is not None else None)
        return problems and problems * self.batch.samples

    @property
    def groups(self) -> dict[str, BaseModel]:
        """The options stored in the run directory, by group title."""
        chosen: dict[str, BaseModel] = {
            "grader": GraderChoice(grader=self.grader.name),
            f"{self.grader.name} grader": self.grader.options,
            "strategy": StrategyChoice(strategy=self.strategy.name),
            f"{self.strategy.name} strategy": self.strategy.options,
        }
        named = {title: group for title, group in chosen.items() if not isinstance(group, NoOptions)}
        return self.solver.groups | {"batch": self.batch, "data": self.data} | named

    @property
    def rules(self) -> ResumeRules:
        """What may change on resume. Runs of older versions used the grader of the problems' kind."""
        rules = ResumeRules.of({title: type(group) for title, group in self.groups.items()})
        of_kind = {"grader": {"grader": resolve_task(self.data).kind.value}}
        return replace(rules, defaults={**rules.defaults, **of_kind})

    def on(self, day: date) -> Self:
        """A copy with the date that chat templates print, if none is set."""
        solve = self.solver.solve
        if solve.chat_template_date is not None:
            return self
        dated = solve.model_copy(update={"chat_template_date": day})
        return replace(self, solver=replace(self.solver, solve=dated))

    def stored(self) -> dict[str, Any]:
        """The run's identity as JSON: all options except ``Runtime`` ones, and digests of the files that they name.

        Raises:
            ModelError: the model cannot be found or read.
            OSError: a file cannot be read.
        """
        found: dict[str, Any] = {"engine": self.solver.engine}
        found |= {title: fields.deciding(group) for title, group in self.groups.items()}
        found["sampling"] = self.solver.resolved_sampling().model_dump(mode="json")
        files = [path for path in self.solver.named_files if path.is_file()]
        if self.data.data is not None and (path := Path(self.data.data).expanduser()).exists():
            files += data_files(path)
        found["files"] = {str(path): file_digest(path) for path in files} | local_digests(self.solver.solve.model)
        return found


def _grader(task: Task, strategy: Chosen, layers: Sequence[Mapping[str, Any]]) -> Chosen:
    """The grader that the options name, else the task's, else the default for its kind. Raises ConfigError."""
    name = fields.build(GraderChoice, *layers).grader or task.grader or task.kind.value
    entry = find_grader(name, task.kind)
    if entry.value is None and STRATEGIES.find(strategy.name).compares:
        raise ConfigError(
            f"--strategy {strategy.name} counts equal answers, and --grader {name} cannot tell which answers are equal"
        )
    return GRADERS.choose(name, *layers)


@dataclass(frozen=True, slots=True)
class BatchConfig:
    """A run and where it is stored."""

    run: RunConfig
    output_dir: Path

    @classmethod
    def from_layers(cls, *layers: Mapping[str, Any]) -> Self:
        """Build from layered options; later layers override earlier ones. Raises ConfigError."""
        path = fields.build(RunOptions, *layers).output_dir
        return cls(RunConfig.from_layers(*layers), path)


RUNTIME_NAMES = fields.runtime_names(*GROUPS.values(), *RUN_GROUPS.values())
"""The options that may change when a run is resumed, without those of the engines."""


class RunListener:
    """Receives a run's progress. The base class does nothing."""

    def on_start(self, total: int | None, sandbox: BaseSandbox | None) -> None:
        """The executor is open and traces are pending; ``total`` is the number of all traces, None if unknown."""

    def on_progress(self, progress: Progress) -> None:
        """A record was stored, a fault counted, or a trace given up."""

    def on_notice(self, line: str) -> None:
        """A line to show the user."""


async def run_evaluation(
    config: RunConfig, output_dir: Path, listener: RunListener | None = None
) -> tuple[Summary, Progress]:
    """Solve and grade what the run directory lacks, then write its summary (``summary.json``).

    Cancelling it cancels all traces in flight. Finished records are on disk, and calling it again resumes the run. An
    error before the first record leaves no new file or folder.

    Raises:
        RunDirectoryError: the directory is in use, damaged, or holds a run of other options.
        BatchError: too many traces failed at every try, or the disk is full.
        InputError, HintError, EngineError, SandboxError: as ``open_executor``.
    """
    listener = listener or RunListener()
    # Chat templates that print the date print that of the first start.
    noted = (read_note(output_dir, _PROMPT) or {}).get("day")
    dated = config.on(date.fromisoformat(noted) if noted else date.today())
    with RunDirectory.open(output_dir, config.stored(), versions=versions(), rules=config.rules) as directory:
        if directory.truncated_bytes:
            listener.on_notice(
                f"dropped a truncated last record ({directory.truncated_bytes} bytes); it will be computed again"
            )
        progress = Progress()
        # Check before loading the model. This reads the first problem, or all of them if nothing is pending.
        if await asyncio.to_thread(has_pending, stream(config.data), directory, config.batch.samples):
            try:
                progress = await _run_pending(dated, directory, listener)
            except asyncio.CancelledError:
                if count := len(directory.done):
                    listener.on_notice(f"{count} records are in {output_dir}: run the same command to resume")
                raise
        elif not directory.truncated_bytes:
            listener.on_notice(f"nothing is pending: {output_dir} has {len(directory.done)} records")
        summary = summarize(output_dir, config.batch.samples)
        directory.write_summary(asdict(summary) | {"owed": progress.failed, "this_start": _this_start(progress)})
    return summary, progress


async def _run_pending(config: RunConfig, directory: RunDirectory, listener: RunListener) -> Progress:
    directory.settle(_PROMPT, await asyncio.to_thread(_prompt_note, config.solver))
    async with AsyncExitStack() as stack:
        executor: RolloutExecutor
        sandbox = None
        if config.ray.ray is None:
            opening = open_executor(
                config.solver, config.grader, config.batch, strategy=config.strategy, on_notice=listener.on_notice
            )
            executor = local = await stack.enter_async_context(opening)
            sandbox = local.solver.sandbox
        else:
            executor = await open_workers(
                stack, config.solver, config.grader, config.batch, config.ray, strategy=config.strategy
            )
        listener.on_start(config.total, sandbox)
        return await run_at(executor, stream(config.data), directory, config.batch, listener=listener.on_progress)


def _prompt_note(config: SolverConfig) -> dict[str, Any]:
    """Identifies a run's prompts: the hash of a rendered sample, the date that they print, and the model's commit."""
    from start_agent.tokens.prompts import ChatFormat
    from start_agent.tokens.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_pretrained(config.solve.model, revision=config.revision)
    chat = ChatFormat(tokenizer, config.chat)
    note = {"sha256": chat.digest(config.solve.system), "commit": tokenizer.commit}
    return note | ({"day": str(config.solve.chat_template_date)} if chat.prints_day else {})


def _this_start(progress: Progress) -> dict[str, Any]:
    seconds = progress.seconds if progress.done else 0.0
    return {
        "records": progress.done,
        "seconds": seconds,
        "tokens_per_second": progress.tokens / seconds if seconds else 0.0,
        "kernel_wait_seconds": progress.wait_seconds,
        "engine_idle_seconds": progress.idle_seconds,
        "faults": dict(progress.faults),
    }
