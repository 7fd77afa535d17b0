"""``start-agent completion``: prints a shell's completion script for commands, flags and their choices."""

from __future__ import annotations

import argparse
from typing import Any

_EXAMPLES = """examples:
  start-agent completion bash > ~/.local/share/bash-completion/completions/start-agent
  start-agent completion zsh > ~/.zfunc/_start-agent       with  fpath+=~/.zfunc  before compinit in ~/.zshrc
"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "completion",
        description="Print a completion script; save it where your shell loads completion scripts.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="the shell")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    import shtab

    from start_agent.cli.main import command_parser

    print(shtab.complete(command_parser(all_commands=True), arguments.shell))
    return 0
