"""``start-agent``: the entry point; each command is a module with ``add`` and ``run``."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from hints import HintError
from sandbox import SandboxError
from start_agent import __version__
from start_agent.cli import batch, compare, environment, hint_rft, pocket, reproduce, rows, select, sft, solve, star
from start_agent.cli.parser import Parser
from start_agent.errors import INPUT_ERROR, InputError, StartAgentError

_FAILURE, _INTERRUPTED = 1, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 1 (infrastructure), 2 (bad input) or 130 (interrupted)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show a character shows its number
            stream.reconfigure(errors="backslashreplace")
    try:
        options = _parser().parse_args(arguments)
        code = int(options.run(options))
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except (InputError, HintError) as error:
        return _complain(error, INPUT_ERROR)
    except (StartAgentError, SandboxError) as error:
        return _complain(error, _FAILURE)
    except KeyboardInterrupt:
        return _complain("interrupted", _INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has gone
        _drop_output()
        return _FAILURE
    except OSError as error:  # a full disk behind standard output, a folder that has vanished
        _drop_output()
        return _complain(f"{error.filename or 'input or output'}: {error.strerror or error}", _FAILURE)


def _parser() -> Parser:
    parser = Parser(
        prog="start-agent",
        description="Tool-integrated reasoning: hints wake a model's Python, a sandbox runs it.",
        epilog="Each command explains itself: start-agent COMMAND --help",
    )
    parser.add_argument("--version", action="version", version=f"start-agent {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (solve, batch, compare, select, rows, sft, hint_rft, star, reproduce, pocket, environment):
        command.add(commands)
    return parser


def _drop_output() -> None:
    """Where standard output takes nothing more, Python would complain again while it flushes at exit."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(error: object, code: int) -> int:
    print(f"start-agent: {error}", file=sys.stderr)
    return code
