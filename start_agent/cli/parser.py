"""The argument parsers of the commands, with error messages of one line."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from start_agent.errors import INPUT_ERROR, did_you_mean

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
        self._needs_command = False
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
        words = sys.argv[1:] if args is None else args
        if self._needs_command:  # before argparse says that there is none
            self._refuse_options([word for word in words[:1] if word.startswith("--")], known=self._shown_options())
        found, unknown = super().parse_known_args(words, namespace)
        self._refuse_options([word for word in unknown if word.startswith("-")])
        if unknown:
            self.error(f"unexpected argument {unknown[0]!r}: put quotes around a text of several words")
        return found, unknown

    def add_subparsers(self, **settings: Any) -> Any:
        """See ``ArgumentParser.add_subparsers``."""
        self._needs_command = bool(settings.get("required"))
        return super().add_subparsers(**settings)

    def _shown_options(self) -> list[str]:
        return re.findall(r"--[\w-]+", self.format_help())

    def _refuse_options(self, words: Sequence[str], known: Sequence[str] = ()) -> None:
        """Exit with the first of the words that is no known option, and similar ones."""
        unknown = [option for word in words if (option := word.partition("=")[0]) not in known]
        if unknown:
            guess = did_you_mean(unknown[0], self._shown_options())
            self.error(f"unknown option {unknown[0]}" + (f": {guess}" if guess else ""))

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Suggest similar commands and values, which argparse does only from Python 3.14 on."""
        choices = action.choices
        if choices is None or value in choices:
            return
        known = [str(choice) for choice in choices]
        hint = did_you_mean(str(value), known) or f"choose from {', '.join(known)}"
        # The choices of commands are a mapping to their parsers.
        what = f"unknown command {value!r}" if isinstance(choices, Mapping) else f"invalid choice {value!r}"
        raise argparse.ArgumentError(None if isinstance(choices, Mapping) else action, f"{what}: {hint}")


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
