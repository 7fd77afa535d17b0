"""The argument parsers of the commands, with error messages of one line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from start_agent.errors import INPUT_ERROR

_LEVELS = ("debug", "info", "warning", "error", "critical")


class Parser(argparse.ArgumentParser):
    """A parser without abbreviated flags and with error messages of one line.

    Attributes:
        has_positionals: whether it has positional arguments; then a list flag takes one word per occurrence, because a
            second word could be a positional argument.
        words: the words of the command line, if they are known before parsing.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        self.has_positionals = False
        self.words: Sequence[str] = ()
        super().__init__(*given, **{"allow_abbrev": False, **named})

    def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
        """See ``ArgumentParser.add_argument``."""
        action = super().add_argument(*names, **settings)
        self.has_positionals = self.has_positionals or not action.option_strings
        return action

    def error(self, message: str) -> NoReturn:
        """Exit with a message of one line, without the usage, which may be very long."""
        self.exit(INPUT_ERROR, f"{self.prog}: {message} (see  {self.prog} --help)\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Reject unknown words here, where the command and its options are known, and not in the parent parser."""
        found, unknown = super().parse_known_args(args, namespace)
        options = [word.partition("=")[0] for word in unknown if word.startswith("-")]
        if options:
            from start_agent.fields import did_you_mean  # imports pydantic

            known = re.findall(r"--[\w-]+", self.format_usage())
            guess = did_you_mean(options[0], known)
            self.error(f"unknown option {options[0]}" + (f": {guess}" if guess else ""))
        if unknown:
            self.error(f"unexpected argument {unknown[0]!r}: put quotes around a text of several words")
        return found, unknown


class Command(Parser):
    """The parser of a command, with the options that all commands share."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        group = self.add_argument_group("messages")
        group.add_argument(
            "-v",
            "--verbose",
            action="count",
            default=argparse.SUPPRESS,
            help="log on stderr what start-agent does; twice for all details",
        )
        group.add_argument(
            "--log-level",
            choices=_LEVELS,
            default=argparse.SUPPRESS,
            help="lowest level of log messages, including those of libraries (default: warning)",
        )
        group.add_argument(
            "--log-file",
            default=argparse.SUPPRESS,
            metavar="PATH",
            help="also append log messages to this file, with timestamps",
        )
