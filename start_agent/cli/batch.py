"""``start-agent batch``: solves and grades a set of problems; can be resumed at any time."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from start_agent import fields
from start_agent.cli.progress import ProgressBar
from start_agent.cli.solving import add_options, hide_progress_bars, notice, run_to_end
from start_agent.engines import registry
from start_agent.evaluation import (
    RUN_GROUPS,
    RUNTIME_NAMES,
    BatchConfig,
    RunConfig,
    RunListener,
    RunOptions,
    run_evaluation,
)
from start_agent.grading.registry import GRADERS
from start_agent.strategies.registry import STRATEGIES

if TYPE_CHECKING:
    from sandbox import BaseSandbox
    from start_agent.analysis.summary import Summary
    from start_agent.batch.progress import Progress

_EXAMPLES = """examples:
  start-agent batch --task pocket --limit 60 --output-dir runs/pocket
  start-agent batch --task pocket --limit 60 --no-hints --output-dir runs/alone
  start-agent batch --task gsm8k --data gsm8k-test.jsonl --model Qwen/QwQ-32B --samples 4 --temperature 0.6 \\
      --output-dir runs/gsm8k
  start-agent batch --task pocket --limit 60 --temperature 0.6 --strategy majority --votes 5 --output-dir runs/voted
  start-agent batch --data my.jsonl --question-column question --answer-column answer --output-dir runs/mine
  start-agent batch --task math500 --model Qwen/QwQ-32B --engine vllm --ray auto --output-dir runs/math500
  start-agent compare runs/alone runs/pocket

Run the same command again to resume a stopped run: only missing traces are generated. --limit and --samples may grow
between starts, and these options may change: """


def add(commands: Any) -> None:
    """Add the command to the parser."""
    models = [model for one in (registry.ENGINES, GRADERS, STRATEGIES) for model in one.option_models().values()]
    may_change = RUNTIME_NAMES | fields.runtime_names(*models)
    parser: argparse.ArgumentParser = commands.add_parser(
        "batch",
        description="Solve and grade a set of problems concurrently; run the same command again to resume.",
        epilog=_EXAMPLES + ", ".join(fields.flag_of(name) for name in sorted(may_change)) + ".\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser, RUN_GROUPS, GRADERS, STRATEGIES)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run what is missing; 0 if the run is complete, 1 if traces are pending."""
    file, given = fields.read_yaml(arguments.config), vars(arguments)
    fields.refuse_unknown(file, [RunOptions, *RunConfig.models(file, given)], arguments.config)
    return run_config(BatchConfig.from_layers(file, given))


def run_config(config: BatchConfig) -> int:
    """Run what is missing, and show the progress."""
    return run_to_end(_batch(config))


async def _batch(config: BatchConfig) -> int:
    hide_progress_bars(config.run.solver)
    with _Display() as display:
        summary, progress = await run_evaluation(config.run, config.output_dir, display)
    _report(config.output_dir, summary, progress)
    return 1 if progress.failed else 0


class _Display(ExitStack, RunListener):
    """Shows the run's progress on stderr."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: ProgressBar | None = None

    def on_start(self, total: int | None, sandbox: BaseSandbox | None) -> None:
        """Show the progress bar."""
        self._bar = self.enter_context(ProgressBar(total, sandbox))

    def on_progress(self, progress: Progress) -> None:
        """Update the progress bar."""
        if self._bar is not None:
            self._bar.on_progress(progress)

    def on_notice(self, line: str) -> None:
        """Print the line."""
        notice(line)


def _report(path: Path, summary: Summary, progress: Progress) -> None:
    """Print the table of the summary."""
    from start_agent.cli.live import tables_console
    from start_agent.cli.tables import summary_tables

    console = tables_console()
    for table in summary_tables(summary, str(path), progress):
        console.print(table)
    if progress.failed:
        console.print(f"{progress.failed} traces failed all attempts and are pending; last: {progress.last_fault}")
