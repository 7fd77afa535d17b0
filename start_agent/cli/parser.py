"""The parsers of all commands: what is wrong with a command line is said in one line, like all else."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from start_agent.errors import INPUT_ERROR

_LEVELS = ("debug", "info", "warning", "error", "critical")


class Parser(argparse.ArgumentParser):
    """A parser that takes no abbreviations of flags, and says in one line what is wrong.

    Attributes:
        has_positionals: whether it takes words beside its flags: a flag then takes one word, not several, for the
            second could be meant for the command.
        words: of the command line, where they are known before it is parsed.
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
        """End with one line, without the usage, which for some commands is forty."""
        self.exit(INPUT_ERROR, f"{self.prog}: {message} (see  {self.prog} --help)\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Refuse what is not known here, where the command and its options are, not in the parser above."""
        found, unknown = super().parse_known_args(args, namespace)
        options = [word.partition("=")[0] for word in unknown if word.startswith("-")]
        if options:
            from start_agent.fields import did_you_mean  # imports pydantic

            known = re.findall(r"--[\w-]+", self.format_usage())
            guess = did_you_mean(options[0], known)
            self.error(f"unknown option {options[0]}" + (f": {guess}" if guess else ""))
        if unknown:
            self.error(f"unexpected argument {unknown[0]!r}: put a text of several words between quotes")
        return found, unknown


class Command(Parser):
    """The parser of a command: it has the options that all commands have."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        group = self.add_argument_group("messages")
        group.add_argument(
            "-v",
            "--verbose",
            action="count",
            default=argparse.SUPPRESS,
            help="say on stderr what start-agent does; twice, in every detail",
        )
        group.add_argument(
            "--log-level",
            choices=_LEVELS,
            default=argparse.SUPPRESS,
            help="least level of the messages of all packages, the libraries' too (default: warning)",
        )
        group.add_argument(
            "--log-file",
            default=argparse.SUPPRESS,
            metavar="PATH",
            help="append the messages to this file too, with times",
        )
