"""``start-agent batch``: a whole set of problems, resumable at any moment."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from hints import Domain
from sandbox import most_kernels
from start_agent import fields
from start_agent.batch.options import BatchOptions, RayOptions
from start_agent.cli import flags
from start_agent.cli.solving import (
    SolveOptions,
    add_options,
    chat_options,
    open_solver,
    resolved,
    revision_of,
    run_to_end,
    sampling_of,
)
from start_agent.engines.registry import OPTIONS, EngineChoice
from start_agent.files import file_digest
from start_agent.models import local_digests
from start_agent.problem import Kind
from start_agent.tasks.options import DataOptions
from start_agent.versions import versions

if TYPE_CHECKING:
    from start_agent.batch.executor import Grade, LocalExecutor, RolloutExecutor
    from start_agent.batch.progress import Progress
    from start_agent.batch.store import RunDirectory
    from start_agent.decoding.solver import Solver

_EXAMPLES = """examples:
  start-agent batch --task pocket --limit 60 --output-dir runs/pocket
  start-agent batch --task pocket --limit 60 --no-hints --output-dir runs/alone
  start-agent batch --task gsm8k --data gsm8k-test.jsonl --model Qwen/QwQ-32B --samples 4 --temperature 0.6 \\
      --output-dir runs/gsm8k
  start-agent batch --data my.jsonl --question-column question --answer-column answer --output-dir runs/mine
  start-agent batch --task math500 --model Qwen/QwQ-32B --engine vllm --ray auto --output-dir runs/math500
  start-agent compare runs/alone runs/pocket

Run the same command again after whatever stopped it: only what is missing is done. --limit and --samples may grow
between the starts, and these may change: """


class RunOptions(BaseModel):
    """Where a run is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output_dir: Path = Field(description="the run directory: new, or that of the same run")


_PROMPT = "prompt"  # the note in config.json of what the prompts are made with

_OWN: dict[str, type[BaseModel]] = {"run": RunOptions, "batch": BatchOptions, "data": DataOptions, "ray": RayOptions}
_MAY_CHANGE = fields.runtime_names(BatchOptions, DataOptions, RayOptions, *OPTIONS.values())
_EXAMPLES += ", ".join("--" + name.replace("_", "-") for name in sorted(_MAY_CHANGE)) + ".\n"


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "batch",
        help="solve and grade a whole set of problems; resumable",
        description="Solve and grade a set of problems, many at once; the same command again does what is still owed.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for title, model in _OWN.items():
        flags.add_options(parser, model, title)
    add_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Do what is owed; 0 where nothing is owed any more, 1 where something is."""
    return run_to_end(_batch(arguments))


async def _batch(arguments: argparse.Namespace) -> int:
    from start_agent.batch.progress import Progress
    from start_agent.batch.resume import ResumeRules
    from start_agent.batch.runner import has_pending
    from start_agent.batch.store import RunDirectory, read_note
    from start_agent.tasks import resolve_task, stream

    kind = resolve_task(fields.of_type(DataOptions, resolved(arguments, _OWN))).kind
    if kind is Kind.CODE and "domain" not in vars(arguments) | fields.read_yaml(arguments.config):
        arguments.domain = Domain.CODE  # nobody has said which hints: those for programs
    groups = resolved(arguments, _OWN)
    path = fields.of_type(RunOptions, groups).output_dir
    if fields.of_type(SolveOptions, groups).chat_template_date is None:
        # Prompts that print the day print that of the first start; workers on other machines are told it.
        noted = (read_note(path, _PROMPT) or {}).get("day")
        arguments.chat_template_date = noted or date.today().isoformat()
    data, options = fields.of_type(DataOptions, groups), fields.of_type(BatchOptions, groups)
    rules = ResumeRules.of({title: type(group) for title, group in groups.items()})
    with RunDirectory.open(path, _configuration(groups), versions=versions(), rules=rules) as directory:
        if directory.truncated_bytes:
            print(
                f"dropped a truncated last record ({directory.truncated_bytes} bytes); it will be computed again",
                file=sys.stderr,
            )
        progress = Progress()
        try:
            # Before a model is loaded in vain: the first problem is read, and all of them where none is missing.
            if await asyncio.to_thread(has_pending, stream(data), directory, options.samples):
                progress = await _solve_pending(
                    arguments, kind, data, options, directory, fields.of_type(RayOptions, groups)
                )
            elif not directory.truncated_bytes:
                print(f"nothing is owed: {path} has {len(directory.done)} records", file=sys.stderr)
        except asyncio.CancelledError:
            print(f"{len(directory.done)} records are in {path}: the same command goes on from there", file=sys.stderr)
            raise
        _report(directory, options, progress)
    return 1 if progress.failed else 0


async def _solve_pending(
    arguments: argparse.Namespace,
    kind: Kind,
    data: DataOptions,
    options: BatchOptions,
    directory: RunDirectory,
    cluster: RayOptions,
) -> Progress:
    from start_agent.batch.runner import run_at
    from start_agent.cli.progress import ProgressBar
    from start_agent.tasks import stream

    directory.settle(_PROMPT, await asyncio.to_thread(_prompt_note, resolved(arguments, _OWN)))
    async with AsyncExitStack() as stack:
        executor: RolloutExecutor
        if cluster.ray is None:
            executor = local = await stack.enter_async_context(open_executor(arguments, kind, options))
            sandbox = local.solver.sandbox
        else:
            executor, sandbox = await _open_workers(stack, arguments, kind, options, cluster), None
        progress = stack.enter_context(ProgressBar(_total(data, options), sandbox))
        return await run_at(executor, stream(data), directory, options, listener=progress.on_progress)


@asynccontextmanager
async def open_executor(
    arguments: argparse.Namespace, kind: Kind, options: BatchOptions
) -> AsyncGenerator[LocalExecutor, None]:
    """What solves and grades: in this process, or in that of a Ray worker."""
    from start_agent.batch.executor import LocalExecutor

    kernels = min(options.kernels or max(most_kernels() // 2, 1), options.concurrency)
    async with AsyncExitStack() as stack:
        solver, solve_options = await stack.enter_async_context(open_solver(arguments, sessions=kernels, more=_OWN))
        grade = await _open_grader(stack, kind, solver, kernels, solve_options.unsafe_no_isolation)
        yield LocalExecutor(
            solver, grade, seed=solve_options.seed, instruction=solve_options.instruction, retries=options.retries
        )


async def _open_workers(
    stack: AsyncExitStack, arguments: argparse.Namespace, kind: Kind, options: BatchOptions, cluster: RayOptions
) -> RolloutExecutor:
    """The workers of a Ray cluster; traces in flight are shared out among them."""
    from start_agent.batch.cluster import connect, count_workers
    from start_agent.batch.ray import RayBench

    assert cluster.ray is not None
    stack.enter_context(connect(cluster.ray_address))
    workers, gpus = count_workers(cluster.ray, _gpus(resolved(arguments, _OWN)))
    places = -(-options.concurrency // workers)
    executor = RayBench(
        partial(open_executor, arguments, kind, options.model_copy(update={"concurrency": places})),
        workers=workers,
        places=places,
        retries=options.retries,
        restarts=cluster.ray_restarts,
        gpus=gpus,
    )
    return await stack.enter_async_context(executor)


def _gpus(groups: Mapping[str, BaseModel]) -> int:
    """How many GPUs an engine of these options needs, on a machine that has some."""
    from start_agent.engines.transformers import TransformersOptions
    from start_agent.engines.vllm import VLLMOptions

    for group in groups.values():
        if isinstance(group, VLLMOptions):
            return group.tensor_parallel_size
        if isinstance(group, TransformersOptions):
            return int(group.device != "cpu")
    return 0


async def _open_grader(stack: AsyncExitStack, kind: Kind, solver: Solver, kernels: int, unsafe: bool) -> Grade:
    """What grades this kind of problem, open: processes for mathematics, a wider sandbox for programs."""
    from sandbox import Sandbox
    from start_agent.grading import GraderPool, grade
    from start_agent.grading.code import LIMITS

    pool = await stack.enter_async_context(GraderPool()) if kind is Kind.MATH else None
    box = None
    if kind is Kind.CODE:
        box = Sandbox(LIMITS, size=min(kernels, os.cpu_count() or 1), unsafe_no_isolation=unsafe)
        await stack.enter_async_context(box)
    return partial(grade, pool=pool, sandbox=box, decode=solver.engine.tokenizer.decode)


def _total(data: DataOptions, options: BatchOptions) -> int | None:
    """Traces in all: exactly for made problems, at most for those that are read."""
    from start_agent.tasks import resolve_task
    from start_agent.tasks.loading import POCKET_COUNT

    problems = data.limit or (POCKET_COUNT if resolve_task(data).make is not None else None)
    return problems and problems * options.samples


def _prompt_note(groups: Mapping[str, BaseModel]) -> dict[str, Any]:
    """What a run's prompts are made with: a probe's hash, the day that they print, and the model's commit."""
    from start_agent.tokens.prompts import ChatFormat
    from start_agent.tokens.tokenizer import Tokenizer

    options = fields.of_type(SolveOptions, groups)
    tokenizer = Tokenizer.from_pretrained(options.model, revision=revision_of(groups))
    chat = ChatFormat(tokenizer, chat_options(options))
    note = {"sha256": chat.digest(options.system), "commit": tokenizer.commit}
    return note | ({"day": str(options.chat_template_date)} if chat.prints_day else {})


def _configuration(groups: Mapping[str, BaseModel]) -> dict[str, Any]:
    """What decides the records: all options but the ``Runtime`` ones, and the content of what they name."""
    from start_agent.tasks.files import data_files

    found: dict[str, Any] = {"engine": fields.of_type(EngineChoice, groups).engine}
    for title, group in groups.items():
        if not isinstance(group, RunOptions | RayOptions | EngineChoice):
            found[title] = fields.deciding(group)
    found["sampling"] = sampling_of(groups).model_dump(mode="json")
    options = fields.of_type(SolveOptions, groups)
    named = (*options.hint_files, options.chat_template, options.think_markers)
    files = [path for path in named if path is not None and path.is_file()]
    data = fields.of_type(DataOptions, groups).data
    if data is not None and (path := Path(data).expanduser()).exists():
        files += data_files(path)
    found["files"] = {str(path): file_digest(path) for path in files} | local_digests(options.model)
    return found


def _report(directory: RunDirectory, options: BatchOptions, progress: Progress) -> None:
    """Write ``summary.json`` and print its table."""
    from rich.console import Console

    from start_agent.analysis.summary import summarize
    from start_agent.cli.tables import summary_tables

    summary = summarize(directory.path, options.samples)
    seconds = progress.seconds if progress.done else 0.0
    this_start = {
        "records": progress.done,
        "seconds": seconds,
        "tokens_per_second": progress.tokens / seconds if seconds else 0.0,
        "kernel_wait_seconds": progress.wait_seconds,
        "engine_idle_seconds": progress.idle_seconds,
        "faults": dict(progress.faults),
    }
    directory.write_summary(asdict(summary) | {"owed": progress.failed, "this_start": this_start})
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    for table in summary_tables(summary, str(directory.path), progress):
        console.print(table)
    if progress.failed:
        console.print(f"{progress.failed} traces failed at every try and are owed; the last: {progress.last_fault}")
