"""Calls ``start-agent`` in this process, if a separate one does not matter: seconds faster."""

from __future__ import annotations

import io
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from unittest import mock

from start_agent.cli.main import main


def start_agent(*arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """The exit code of a command, and what it says on standard output and standard error."""
    words = list(map(str, arguments))
    output, error = io.StringIO(), io.StringIO()
    with redirect_stdout(output), redirect_stderr(error), mock.patch("sys.stdin", io.StringIO(stdin)):
        try:
            code = main(words)
        except SystemExit as done:  # argparse, behind --help and --version
            code = done.code if isinstance(done.code, int) else 0
    return subprocess.CompletedProcess(words, code, output.getvalue(), error.getvalue())
