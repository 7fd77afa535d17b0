"""The known tasks. Adding one is adding an entry."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast, get_args

from start_agent import pocket
from start_agent.errors import ConfigError
from start_agent.pocket.families import FAMILIES
from start_agent.problem import Kind, Problem
from start_agent.tasks import reading
from start_agent.tasks.releases import release_files
from start_agent.tasks.task import Source, Task


def _pocket(count: int, split: str | None, families: Sequence[str] | None = None) -> list[Problem]:
    """Problems of the pocket families: held-out ones, which the embedded model has never seen, unless said."""
    if split not in (None, *get_args(pocket.Split)):
        raise ConfigError(f"--split {split}: the pocket problems have {', '.join(get_args(pocket.Split))}")
    return [
        Problem(problem.question, problem.answer, meta={"level": problem.level, "subject": problem.family})
        for problem in pocket.generate(0, count, split=cast("pocket.Split", split or "held-out"), families=families)
    ]


_KNOWN = (
    Task("gsm8k", Kind.MATH, reading.gsm8k, Source("openai/gsm8k", "main"), about="grade school word problems"),
    Task("math500", Kind.MATH, reading.math, Source("HuggingFaceH4/MATH-500"), about="500 problems of MATH's test set"),
    Task("aime24", Kind.MATH, reading.aime, Source("HuggingFaceH4/aime_2024", split="train"), about="AIME 2024"),
    Task("aime25", Kind.MATH, reading.aime, Source("math-ai/aime25"), about="AIME 2025"),
    Task("amc23", Kind.MATH, reading.math, Source("math-ai/amc23"), about="AMC 12 of 2023"),
    Task(
        "gpqa_diamond",
        Kind.CHOICE,
        reading.gpqa,
        Source("Idavidrein/gpqa", "gpqa_diamond", "train"),
        about="science questions for experts; the choices are shuffled by --choice-seed",
    ),
    Task(
        "commonsenseqa",
        Kind.CHOICE,
        reading.commonsenseqa,
        Source("tau/commonsense_qa", split="validation"),
        about="questions of common sense with five choices",
    ),
    Task(
        "livecodebench",
        Kind.CODE,
        reading.livecodebench,
        # The set's own loading script is no longer run by `datasets`; its files are plain JSON lines.
        Source("hf://datasets/livecodebench/code_generation_lite", split="train", large=True, files=("test*.jsonl",)),
        release_files,
        about="programming problems of contests, with tests",
    ),
    Task("pocket", Kind.MATH, make=_pocket, about="held-out problems of all pocket families"),
    *(
        Task(f"pocket_{name}", Kind.MATH, make=partial(_pocket, families=[name]), about=f"pocket: {family.about}")
        for name, family in FAMILIES.items()
    ),
)

TASKS: dict[str, Task] = {task.name: task for task in _KNOWN}
"""By name."""
