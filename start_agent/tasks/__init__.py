"""Loads problems from data sets.

::

    for problem in load("gsm8k", data="gsm8k-test.jsonl", limit=10):
        print(problem.key, prompt_text(problem), problem.answer)

Importing this package does not load ``datasets``.
"""

from start_agent.problem import CodeTests, Kind, Problem
from start_agent.tasks.definitions import known_tasks
from start_agent.tasks.loading import load, resolve_task, stream
from start_agent.tasks.options import DataOptions
from start_agent.tasks.prompts import instruction_of, prompt_text, question_text
from start_agent.tasks.task import Source, Task

__all__ = [
    "CodeTests",
    "DataOptions",
    "Kind",
    "Problem",
    "Source",
    "Task",
    "instruction_of",
    "known_tasks",
    "load",
    "prompt_text",
    "question_text",
    "resolve_task",
    "stream",
]
