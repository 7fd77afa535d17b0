"""The location of the real data sets: next to the repository, or from the environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("START_AGENT_SHARED") or Path(__file__).parents[3] / "shared")
"""The folder of real data; ``START_AGENT_SHARED`` names another one."""


def shared_file(name: str) -> Path:
    """A file of it; without it the test is skipped."""
    path = SHARED / "data" / name
    if not path.is_file():
        pytest.skip(f"the real data is not here (shared/data/{name}; START_AGENT_SHARED names the folder)")
    return path
