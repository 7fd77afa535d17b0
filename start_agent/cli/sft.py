"""``start-agent sft``: fine-tunes a model on rows with labels; can be resumed at any time."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from start_agent import fields
from start_agent.cli import flags
from start_agent.cli.live import PLAIN_EVERY
from start_agent.recipes.steps import SftStepConfig, run_sft
from start_agent.training.options import SftOptions, TrainOptions
from start_agent.training.sft import main_process

if TYPE_CHECKING:
    from start_agent.training.callbacks import Step
    from start_agent.training.evaluation import Evaluation
    from start_agent.training.validation import RowsFacts

_SPANS_SHOWN = 12  # of the first row

_EXAMPLES = """examples:
  start-agent sft --config pocket --data runs/d-seed --output-dir models/start-0
  start-agent sft --config lora --model Qwen/Qwen3-8B --data runs/d-seed --output-dir models/start-0
  accelerate launch --config_file accelerate-zero3.yaml -m start_agent sft --config start-32b \\
      --model Qwen/QwQ-32B-Preview --data runs/d-seed --output-dir models/start-0
  start-agent sft --config pocket --data runs/d-seed --eval-data runs/d-dev --keep-epochs --output-dir models/start-0
  start-agent solve --model models/start-0 "What is 17 * 23?"

Run the same command again to resume from the last checkpoint. These options may change between starts: """
_EXAMPLES += ", ".join(fields.flag_of(name) for name in sorted(fields.runtime_names(SftOptions))) + ".\n"


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "sft",
        description="Fine-tune a model on rows with labels. The rows and the first batch are checked before the first "
        "step. Run the same command again to resume from the last checkpoint.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    flags.add_options(parser, TrainOptions, "run")
    flags.add_options(parser, SftOptions, "training")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train; 0 when the model is saved."""
    return run_config(SftStepConfig.from_layers(vars(arguments)))


def run_config(config: SftStepConfig) -> int:
    """Train, and show the progress."""
    options = config.run
    with _Bar() if main_process() else nullcontext() as bar:
        report = run_sft(
            config,
            begin=None if bar is None else partial(_show, options),
            listener=None if bar is None else bar.on_progress,
        )
    if not main_process():
        return 0
    if report.already_done:
        print(f"nothing is pending: the model in {options.output_dir} is complete", file=sys.stderr)
    print(
        f"{report.steps} steps over {report.rows} rows: from {report.first_loss:.3f} to {report.last_loss:.3f} nats "
        f"per trained token, {report.tokens_per_second:,.0f} tokens/s",
        file=sys.stderr,
    )
    if report.eval_rows:
        answers = f"; answers {report.first_eval_right} to {report.last_eval_right} of {report.eval_answers}"
        print(
            f"{report.eval_rows} held-out rows: from {report.first_eval_loss:.3f} to {report.last_eval_loss:.3f} nats"
            f"{answers if report.eval_answers else ''}",
            file=sys.stderr,
        )
    print(options.output_dir)
    return 0


def _show(options: TrainOptions, row: Mapping[str, Any], facts: RowsFacts) -> None:
    """Show the trained tokens, in total and of one row, so that a wrong mask is noticed before hours of training."""
    from start_agent.cli.rows import row_text
    from start_agent.data.dataset import MANIFEST, read_rows
    from start_agent.tokens.tokenizer import Tokenizer
    from start_agent.training.saving import base_folder
    from start_agent.training.validation import spans

    print(
        f"{facts.rows} rows of up to {facts.longest} tokens; {facts.trained:,} of {facts.tokens:,} tokens in the loss",
        file=sys.stderr,
    )
    if (options.data / MANIFEST).is_file():  # made by select: the rows have the origin of each span
        console = Console(stderr=True, highlight=False)
        tokenizer = Tokenizer.from_pretrained(str(base_folder(options.model)))
        first = next(read_rows(options.data))
        console.print(row_text(first, tokenizer, marked=not console.is_terminal), soft_wrap=True)
    runs = spans(row["labels"])
    shown = " | ".join(f"{count} trained" if kept else f"{count} masked" for kept, count in runs[:_SPANS_SHOWN])
    more = f" | and {len(runs) - _SPANS_SHOWN} more spans" if len(runs) > _SPANS_SHOWN else ""
    print(f"row {row.get('key') or 0}, tokens per span: {shown}{more}", file=sys.stderr)


class _Bar:
    """The run's progress on stderr: a bar on a terminal, otherwise a line every few seconds."""

    def __init__(self) -> None:
        console = Console(stderr=True, highlight=False)
        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps | loss {task.fields[loss]:.4f} | rate {task.fields[rate]:.2e} |"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=console, transient=True) if console.is_terminal else None
        self._task: TaskID | None = None
        self._printed = 0.0  # when the last plain line was printed

    def __enter__(self) -> _Bar:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def on_progress(self, event: Step | Evaluation) -> None:
        """Show a training step or an evaluation."""
        from start_agent.training.callbacks import Step

        if isinstance(event, Step):
            self._step(event)
        else:
            self._evaluated(event)

    def _evaluated(self, found: Evaluation) -> None:
        answers = f" | answers {found.right} of {found.answers}" if found.answers else ""
        line = f"step {found.step} | held-out rows: loss {found.loss:.4f}{answers}"
        if self._progress is not None:
            self._progress.console.print(line)
        else:
            print(line, file=sys.stderr, flush=True)

    def _step(self, step: Step) -> None:
        if self._progress is not None:
            if self._task is None:
                self._task = self._progress.add_task("", total=step.steps, loss=step.loss, rate=step.learning_rate)
            self._progress.update(self._task, completed=step.step, loss=step.loss, rate=step.learning_rate)
        elif time.monotonic() - self._printed >= PLAIN_EVERY or step.step == step.steps:
            self._printed = time.monotonic()
            line = f"step {step.step}/{step.steps} | loss {step.loss:.4f} | rate {step.learning_rate:.2e}"
            print(line, file=sys.stderr, flush=True)
