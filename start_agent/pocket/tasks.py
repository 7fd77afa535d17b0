"""The problems of the pocket families as tasks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast, get_args

from start_agent import pocket
from start_agent.errors import ConfigError
from start_agent.pocket.families import FAMILIES
from start_agent.problem import Kind, Problem
from start_agent.tasks.task import Task


def _pocket(count: int, split: str | None, families: Sequence[str] | None = None) -> list[Problem]:
    """Problems of the pocket families: by default held-out ones, which the embedded model has never seen."""
    if split not in (None, *get_args(pocket.Split)):
        raise ConfigError(f"--split {split}: the pocket problems have {', '.join(get_args(pocket.Split))}")
    return pocket.generate(0, count, split=cast("pocket.Split", split or "held-out"), families=families)


TASKS = (
    Task("pocket", Kind.MATH, make=_pocket, about="held-out problems of all pocket families"),
    *(
        Task(f"pocket_{name}", Kind.MATH, make=partial(_pocket, families=[name]), about=f"pocket: {family.about}")
        for name, family in FAMILIES.items()
    ),
)
