"""Problems of a JSON Lines file, for inspect_ai: ``inspect eval inspect_task.py -T problems=FILE``."""

from __future__ import annotations

from inspect_ai import Task, task
from inspect_ai.dataset import FieldSpec, json_dataset
from inspect_ai.scorer import pattern
from inspect_ai.solver import generate


@task  # type: ignore[untyped-decorator]  # inspect_ai is not in the environment that is checked
def problems(problems: str) -> Task:
    """Each is right where the box holds the answer."""
    fields = FieldSpec(id="id", input="question", target="answer")
    return Task(json_dataset(problems, fields), solver=generate(), scorer=pattern(r"\\boxed\{([^{}]*)\}"))
