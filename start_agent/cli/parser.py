"""The parser of all commands: what is wrong with a command line is said in one line, like all else."""

from __future__ import annotations

import argparse
import re
from typing import Any, NoReturn

from start_agent.errors import INPUT_ERROR
from start_agent.fields import did_you_mean


class Parser(argparse.ArgumentParser):
    """Commands that are added to it are parsed by this class, too."""

    def error(self, message: str) -> NoReturn:
        """End with one line, without the usage, which for some commands is forty."""
        self.exit(INPUT_ERROR, f"{self.prog}: {message} (see  {self.prog} --help)\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Refuse what is not known here, where the command and its options are, not in the parser above."""
        found, unknown = super().parse_known_args(args, namespace)
        options = [word.partition("=")[0] for word in unknown if word.startswith("-")]
        if options:
            known = re.findall(r"--[\w-]+", self.format_usage())
            guess = did_you_mean(options[0], known)
            self.error(f"unknown option {options[0]}" + (f": {guess}" if guess else ""))
        if unknown:
            self.error(f"unexpected argument {unknown[0]!r}: put a text of several words between quotes")
        return found, unknown
