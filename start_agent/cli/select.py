"""``start-agent select``: from runs to a training set."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from start_agent import fields
from start_agent.cli import flags
from start_agent.data.select import GROUPS, SelectConfig, select

_ABOUT = """Choose traces to learn from and write them as rows: ids, labels, and a readable copy.

  hint-rft   from hinted runs, problems that the greedy runs do not solve and a hinted trace does (START-0's data)
  rft        from sampled runs, right traces, at most one for each problem (START's data)

Traces are filtered; every trace that is left out is counted under the first filter that refuses it. With --repair,
what follows the answer is cut before, and a failed cell is removed where a corrected one follows: such a row is no
longer what the model wrote, and says so. What the loss sees of a hint is --hint: mask (the paper), drop (STaR's way),
train, or a mix. Name what must not be learned with --held-out."""

_EXAMPLES = """examples:
  start-agent select --kind hint-rft --greedy runs/alone --runs runs/hinted --held-out pocket --output-dir data/seed
  start-agent select --kind rft --runs runs/sampled --choice fewest_failed --require-tool --output-dir data/start
  start-agent select --kind hint-rft --greedy runs/alone --runs runs/hinted --hint mix --mix-mask 0.5 --mix-drop 0.5 \\
      --output-dir data/mixed
  start-agent rows show --data data/seed
"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "select",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    flags.add_config(parser)
    for title, model in GROUPS.items():
        flags.add_options(parser, model, title)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Select and write; 0 where there are rows."""
    file, given = fields.read_yaml(arguments.config), vars(arguments)
    fields.refuse_unknown(file, list(GROUPS.values()), arguments.config)
    return run_config(SelectConfig.from_layers(file, given))


def run_config(config: SelectConfig) -> int:
    """Select and write, and show what there is."""
    found = select(config, lambda line: print(line, file=sys.stderr))
    _print(found.to_json(), config.select.output_dir)
    return 0


def _print(manifest: dict[str, Any], path: Path) -> None:
    from start_agent.cli.live import tables_console
    from start_agent.cli.tables import data_tables

    console = tables_console()
    for table in data_tables(manifest, str(path)):
        console.print(table)
