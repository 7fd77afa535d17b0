"""Snapshot of the command line: every command with its flags, their defaults, and the exit codes.

A change of it affects users: check the difference, and if it is intended, update the file::

    UPDATE_SNAPSHOT=1 python -m pytest tests/unit/core/test_core_snapshot.py
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator
from pathlib import Path

from start_agent.cli.exit_codes import described
from start_agent.cli.main import command_parser

SNAPSHOT = Path(__file__).with_name("command_line.txt")
_DEFAULT = re.compile(r"\((?:default: [^()]*(?:\([^()]*\))?[^()]*|required)\)")


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and those of its commands, in their order."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in dict.fromkeys(action.choices.values()):
                yield from commands(command)


def line(action: argparse.Action) -> str:
    """A flag: its names, what follows it, its default."""
    names = ", ".join(action.option_strings) or str(action.metavar or action.dest)
    values = f" {action.metavar or ('{' + ','.join(map(str, action.choices)) + '}' if action.choices else '')}".rstrip()
    several = {"+": " ...", "*": " ..."}.get(str(action.nargs), "") if action.option_strings or action.nargs else ""
    if action.help is argparse.SUPPRESS:
        return f"  {names}  (an old name of --{action.dest.replace('_', '-')})"
    default = _DEFAULT.search(action.help or "")
    values = values if action.option_strings else ""
    return f"  {names}{values}{several}" + (f"  {default[0]}" if default else "")


def rendered() -> str:
    parts = [described()]
    for parser in commands(command_parser(all_commands=True)):
        actions = [one for one in parser._actions if not isinstance(one, argparse._SubParsersAction)]
        parts.append("\n".join([parser.prog, *map(line, actions)]))
    return "\n\n".join(parts) + "\n"


def test_the_command_line_is_as_it_was() -> None:
    now = rendered()
    if os.environ.get("UPDATE_SNAPSHOT"):
        SNAPSHOT.write_text(now, encoding="utf-8")
    assert now == SNAPSHOT.read_text(encoding="utf-8"), (
        "the command line has changed; if that is meant, run this test with UPDATE_SNAPSHOT=1 and commit the file"
    )
