"""``start-agent``: the entry point; each command is a module with ``add`` and ``run``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from hints import HintError
from sandbox import SandboxError
from start_agent import __version__
from start_agent.cli import batch, compare, environment, hint_rft, pocket, reproduce, rows, select, sft, solve, star
from start_agent.errors import InputError, StartAgentError

_INPUT_ERROR, _FAILURE, _INTERRUPTED = 2, 1, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 1 (infrastructure), 2 (bad input) or 130 (interrupted)."""
    parser = argparse.ArgumentParser(
        prog="start-agent",
        description="Tool-integrated reasoning: hints wake a model's Python, a sandbox runs it.",
        epilog="Each command explains itself: start-agent COMMAND --help",
    )
    parser.add_argument("--version", action="version", version=f"start-agent {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (solve, batch, compare, select, rows, sft, hint_rft, star, reproduce, pocket, environment):
        command.add(commands)
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except (InputError, HintError) as error:
        return _complain(error, _INPUT_ERROR)
    except (StartAgentError, SandboxError) as error:
        return _complain(error, _FAILURE)
    except KeyboardInterrupt:
        return _complain("interrupted", _INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has gone. Python would complain again while it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILURE


def _complain(error: object, code: int) -> int:
    print(f"start-agent: {error}", file=sys.stderr)
    return code
