"""The entry point ``start-agent``. Each command is a module with ``add``, imported only when it is used."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Collection, Sequence
from functools import partial
from importlib import import_module
from typing import Any

from start_agent.cli.exit_codes import ExitCode, described, exit_code_of
from start_agent.cli.parser import Command, Parser

COMMANDS = {
    "solve": ("solve", "solve one question, streaming"),
    "serve": ("serve", "serve the model over OpenAI's API"),
    "batch": ("batch", "solve and grade a set of problems; resumable"),
    "compare": ("compare", "compare runs over the same problems"),
    "select": ("select", "select traces of runs as training data"),
    "rows": ("rows", "show, check or export a training set"),
    "sft": ("sft", "fine-tune a model on rows with labels; resumable"),
    "hint-rft": ("hint_rft", "train a model to call Python by itself: both rounds, resumable"),
    "star": ("star", "train a model on its own correct rationales (STaR)"),
    "reproduce": ("reproduce", "the papers in miniature, on the pocket reasoner"),
    "pocket": ("pocket", "the embedded reasoner: build it, list its problems, watch it solve some"),
    "env": ("environment", "show versions, devices and the sandbox's isolation"),
    "completion": ("completion", "print a shell's completion script"),
    "step": ("step", ""),  # for recipes
}
"""Command → its module in ``start_agent.cli`` and its line in ``start-agent --help`` (empty: not listed)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code (see ``start_agent.cli.exit_codes``)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # an unencodable character becomes an escape
            stream.reconfigure(errors="backslashreplace")
    try:
        options = command_parser(words).parse_args(words)
        from start_agent.cli.logs import logging_to

        with logging_to(options):
            code = int(options.run(options))
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return _print_error("interrupted", ExitCode.INTERRUPTED)
    except BrokenPipeError:  # the reader of the output has closed it
        _drop_output()
        return ExitCode.FAILED
    except OSError as error:  # a full disk, a folder that was deleted
        _drop_output()
        return _print_error(f"{error.filename or 'input or output'}: {error.strerror or error}", ExitCode.FAILED)
    except Exception as error:
        code_of_error = exit_code_of(error)
        if code_of_error is None:
            raise
        return _print_error(error, code_of_error)


def command_parser(words: Collection[str] = (), *, all_commands: bool = False) -> Parser:
    """The parser of the command line.

    Args:
        words: the command line; options are added only for the command in it, whose module is imported.
        all_commands: add the options of all commands, which imports all their modules.
    """
    from start_agent import __version__

    parser = Parser(
        prog="start-agent",
        description="Tool-integrated reasoning: hints prompt a model to write Python, and a sandbox runs it.",
        epilog=f"Help for a command: start-agent COMMAND --help\n\n{described()}",
        formatter_class=partial(argparse.RawDescriptionHelpFormatter, max_help_position=16),
    )
    parser.add_argument("--version", action="version", version=f"start-agent {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Command)
    chosen = next((word for word in words if not word.startswith("-")), None)
    for name, (module, about) in COMMANDS.items():
        if all_commands or name == chosen:
            import_module(f"start_agent.cli.{module}").add(_Listed(commands, about, words))
        elif about:
            commands.add_parser(name, help=about)
    return parser


class _Listed:
    """The subparsers object for a command's ``add``, which adds its help line and sets the parser's ``words``."""

    def __init__(self, commands: Any, about: str, words: Collection[str]) -> None:
        self._commands, self._about, self._words = commands, about, words

    def add_parser(self, name: str, **settings: Any) -> Any:
        """See ``argparse``."""
        parser = self._commands.add_parser(name, **settings, **({"help": self._about} if self._about else {}))
        parser.words = tuple(self._words)
        return parser


def _drop_output() -> None:
    """Redirect a broken standard output to /dev/null, so that Python's flush at exit raises no second error."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_error(error: object, code: ExitCode) -> ExitCode:
    print(f"start-agent: {error}", file=sys.stderr)
    return code
