"""``start-agent select``: makes a training set from the traces of runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from start_agent import fields
from start_agent.cli import flags
from start_agent.data.select import GROUPS, SelectConfig, select

_ABOUT = """Select traces for training and write them as rows: ids, labels, and a readable copy.

  hint-rft   hinted traces of problems that the greedy runs do not solve (START-0's data)
  rft        correct traces of sampled runs, at most one per problem (START's data)

Traces are filtered; every rejected trace is counted under the first filter that rejects it. --repair first cuts what
follows the answer and removes a failed cell if a corrected one follows; such a row is not exactly what the model wrote,
and is marked. --hint decides about the loss on hints: mask (the paper), drop (as in STaR), train, or a mix. Use
--held-out for problems that must not be trained on."""

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
    """Select and write; 0 if there are rows."""
    file, given = fields.read_yaml(arguments.config), vars(arguments)
    fields.refuse_unknown(file, list(GROUPS.values()), arguments.config)
    return run_config(SelectConfig.from_layers(file, given))


def run_config(config: SelectConfig) -> int:
    """Select and write, and show the counts."""
    found = select(config, lambda line: print(line, file=sys.stderr))
    _print(found.to_json(), config.select.output_dir)
    return 0


def _print(manifest: dict[str, Any], path: Path) -> None:
    from start_agent.cli.live import tables_console
    from start_agent.cli.tables import data_tables

    console = tables_console()
    for table in data_tables(manifest, str(path)):
        console.print(table)
