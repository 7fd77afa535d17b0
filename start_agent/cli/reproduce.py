"""``start-agent reproduce``: reproduces the papers in miniature, with the pocket reasoner."""

from __future__ import annotations

import argparse
from typing import Any

from start_agent import fields
from start_agent.cli import flags
from start_agent.cli.solving import run_to_end
from start_agent.papers.reproduce import ReproduceOptions, parts_of, reproduce_stages

_ABOUT = """Reproduce the papers in miniature, from the embedded base model, offline, on a CPU:

  table        START's table: base, base + Hint-infer, RFT without tools, START-0, START, on held-out problems
  rounds       sequential test-time scaling: 0 to 4 hints at the end of thinking, for the base and START
  ablation     START-0 trained with its hints masked, dropped, trained on, or mixed
  third-round  a third round of training, on samples of START
  star         STaR's addition with a scratchpad, with and without rationalization

Each step is a start-agent command with a log in logs/. Run the same command again to resume. The results are report.md,
report.json and the figures."""

_EXAMPLES = """examples:
  start-agent reproduce --output-dir runs/papers
  start-agent reproduce --output-dir runs/quick --quick --parts table rounds
"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "reproduce",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    flags.add_options(parser, ReproduceOptions, "reproduction")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run what is not done and write the report; 0 whatever the results are."""
    from rich.markdown import Markdown

    from start_agent.cli.live import tables_console
    from start_agent.cli.stages import StagesView
    from start_agent.papers.report import build_report
    from start_agent.papers.report_text import markdown, write_report
    from start_agent.recipes.stages import run_stages

    options = fields.build(ReproduceOptions, vars(arguments))
    parts = parts_of(options)
    stages = reproduce_stages(parts, options)

    async def work() -> int:
        with StagesView() as view:
            states = await run_stages(stages, options.output_dir, workers=options.workers, listener=view.on_progress)
        report = build_report(options.output_dir, options, parts, states)
        write_report(options.output_dir, report)
        tables_console().print(Markdown(markdown(report, {})))
        print(options.output_dir / "report.md")
        return 0

    return run_to_end(work())
