"""``start-agent compare``: compares runs over the same problems."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

_EXAMPLES = """examples:
  start-agent compare runs/alone runs/hinted
  start-agent compare --list runs/alone runs/hinted runs/rounds     each with the first, and problems only one solves
  start-agent compare --json runs/alone runs/hinted | jq '.pairs[0].difference'
"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "compare",
        description="Compare each run with the first over their common problems: difference with its paired interval, "
        "a paired test (exact McNemar for one sample per problem, sign-flip permutation of the problems' means for "
        "several), tokens, tool use.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="DIR", help="run directories; the first is the baseline")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--list", action="store_true", help="list the problems that only one of two runs solves")
    output.add_argument("--json", action="store_true", help="print everything as one line of JSON, nothing else")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Compare and print; always 0."""
    from start_agent.analysis.compare import compare
    from start_agent.cli.live import tables_console
    from start_agent.cli.tables import comparison_tables

    comparison = compare(arguments.runs)
    if arguments.json:
        print(json.dumps(asdict(comparison)))
        return 0
    console = tables_console()
    for table in comparison_tables(comparison):
        console.print(table)
    if arguments.list:
        first = comparison.sides[0].name
        for pair in comparison.pairs:
            for name, keys in ((first, pair.only_first), (pair.name, pair.only_second)):
                print(f"\ncorrect only in {name} (of {first} and {pair.name}): {len(keys)}")
                for key in keys:
                    print(f"  {key[:12]}  {' '.join(comparison.questions[key].split())}")
    return 0
