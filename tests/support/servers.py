"""Model servers in separate processes, started and stopped by tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

STARTS = 300
"""Seconds that a server may take to start on a busy machine."""


PYTHON = "START_AGENT_PYTHON"
"""The variable that names the interpreter of servers, where that of the tests has not all that they need."""


@contextmanager
def serving(
    module: str,
    *arguments: str | Path,
    port: int,
    environment: Mapping[str, str] | None = None,
    log_file: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs a module, from when it answers to ``/health`` on; ended with all that it started.

    Args:
        module: with a main part.
        arguments: of it.
        port: where it listens.
        environment: variables beside those of this process.
        log_file: where its output goes; a file that nobody sees where None.
    """
    with _log(log_file) as log:
        process = subprocess.Popen(
            [os.environ.get(PYTHON, sys.executable), "-m", module, *map(str, arguments)],
            env=os.environ | dict(environment or {}),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            if not _healthy(f"http://127.0.0.1:{port}/health", process):
                log.seek(0)
                pytest.fail(f"the server did not start:\n{log.read()[-4000:]}")
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _log(path: Path | None) -> IO[str]:
    if path is None:
        return tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
    return path.open("w+", encoding="utf-8", errors="replace")


@contextmanager
def llama_server(model: Path, port: int, context: int) -> Iterator[subprocess.Popen[bytes]]:
    """llama.cpp's server of a GGUF file, with so many tokens of context for each of its slots."""
    with serving("tests.support.llama_server", model, str(port), str(context), port=port) as process:
        yield process


def _healthy(url: str, process: subprocess.Popen[bytes]) -> bool:
    started = time.monotonic()
    while time.monotonic() - started < STARTS and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return True
        except OSError:
            time.sleep(0.2)
    return False
