"""Serves the pocket reasoner and runs it with ``batch``, with options that do not depend on seeds.

Harnesses send one seed for all problems, or none, where ``batch`` derives one for each. Decoding is greedy here, and
the one hint that there is comes at the end of thinking: traces are the same whatever the seed, and so are scores.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from start_agent.batch.store import read_records
from tests.support.ports import free_port
from tests.support.servers import PYTHON, serving

PROBLEMS = 20
MAX_TOKENS = 2000
KEY = "key-of-a-client"

HINTS = """\
version: 1
mode: replace
hints:
  - id: only.end_of_think
    domain: math
    function: general_tool_use
    placement: end_of_think
    text: |
      Wait, let me check this with Python.
      ```python
"""


@pytest.fixture(scope="session")
def options(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Of decoding, for both the server and ``batch``."""
    hints = tmp_path_factory.mktemp("hints") / "hints.yaml"
    hints.write_text(HINTS)
    return (
        *("--hint-files", str(hints), "--max-hints", "0", "--end-of-think-hints", "1"),
        *("--temperature", "0", "--max-tokens", str(MAX_TOKENS)),
    )


@pytest.fixture(scope="session")
def records(tmp_path_factory: pytest.TempPathFactory, options: tuple[str, ...]) -> list[dict[str, Any]]:
    """What ``batch`` makes of the problems, in their order."""
    folder = tmp_path_factory.mktemp("run")
    command = [os.environ.get(PYTHON, sys.executable), "-m", "start_agent", "batch", "--task", "pocket"]
    subprocess.run([*command, "--limit", str(PROBLEMS), "--output-dir", folder, *options], check=True, timeout=600)
    found = sorted(read_records(folder), key=lambda record: record["problem"])
    assert len(found) == PROBLEMS
    assert len({record["correct"] for record in found}) == 2, "scores of all or nothing would show little"
    return found


@pytest.fixture(scope="session")
def problems(records: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the same problems."""
    path = tmp_path_factory.mktemp("problems") / "problems.jsonl"
    rows = ({"id": one["problem"], "question": one["question"], "answer": one["gold"]} for one in records)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory, options: tuple[str, ...]) -> Iterator[str]:
    """The address of a server."""
    port, keys = free_port(), tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(KEY)
    with serving("start_agent", "serve", "--port", str(port), "--api-key-file", keys, *options, port=port):
        yield f"http://127.0.0.1:{port}/v1"
