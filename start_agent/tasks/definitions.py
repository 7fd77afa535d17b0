"""The registry of tasks, for ``--task``. A new task is a new entry here.

A package adds a task by an entry point of the group ``start_agent.tasks`` whose value is a ``Task``; see
``start_agent.plugins``.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module

from start_agent.plugins import Registry
from start_agent.problem import Kind
from start_agent.tasks import reading
from start_agent.tasks.releases import release_files
from start_agent.tasks.task import Source, Task

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
        shuffles=True,
        about="science questions for experts; the choices are shuffled by --choice-seed",
    ),
    Task(
        "commonsenseqa",
        Kind.CHOICE,
        reading.commonsenseqa,
        Source("tau/commonsense_qa", split="validation"),
        about="common-sense questions with five choices",
    ),
    Task(
        "livecodebench",
        Kind.CODE,
        reading.livecodebench,
        # `datasets` no longer runs the set's own loading script; its files are plain JSON lines.
        Source("hf://datasets/livecodebench/code_generation_lite", split="train", large=True, files=("test*.jsonl",)),
        release_files,
        about="programming contest problems, with tests",
    ),
)

# Modules that generate their problems; imported only when a task is looked up by name.
_GENERATORS = ("start_agent.pocket.tasks",)


def _built_in() -> list[Task]:
    return [*_KNOWN, *(task for module in _GENERATORS for task in import_module(module).TASKS)]


def listed(names: Iterable[str]) -> str:
    """The names on one line, with the families of pocket problems grouped."""
    found = list(names)
    families = [name.removeprefix("pocket_") for name in found if name.startswith("pocket_")]
    return ", ".join([name for name in found if not name.startswith("pocket_")] + [f"pocket_{{{','.join(families)}}}"])


TASKS = Registry("task", "start_agent.tasks", Task, _built_in, listed)
"""The tasks that ``--task`` can choose."""


def known_tasks() -> dict[str, Task]:
    """All tasks by name: the built-in ones and those of plug-ins. Raises ConfigError."""
    return TASKS.known()
