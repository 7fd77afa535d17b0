"""The stored state of a STaR run: the folders of its iterations, and the records of finished ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from start_agent.batch.store import read_records
from start_agent.data.dataset import read_jsonl

DEV, HELD_OUT = "dev", "held-out"
GENERATED, RATIONALIZED, ROWS = "generated.jsonl", "rationalized.jsonl", "rows.jsonl"
MODEL, EVALUATION = "model", "evaluation.jsonl"


@dataclass(frozen=True, slots=True)
class Iteration:
    """A finished iteration.

    Attributes:
        number: counted from 1; 0 is the base, which is only evaluated.
        steps: training steps.
        tried: number of problems.
        generated: problems solved without help.
        rationalized: problems solved when the answer was shown.
        scores: accuracy by set (``dev``, ``held-out``).
        levels: solved and total problems, by set and by level.
        by_level: tried, generated and rationalized problems, by level.
    """

    number: int
    steps: int
    tried: int
    generated: int
    rationalized: int
    scores: dict[str, float]
    levels: dict[str, dict[str, tuple[int, int]]]
    by_level: dict[str, tuple[int, int, int]]


def best(done: Sequence[Iteration]) -> Iteration:
    """The iteration with the highest score on the development set; the earliest one if there are several."""
    return max(done, key=lambda iteration: (iteration.scores[DEV], -iteration.number))


def stale(done: Sequence[Iteration]) -> int:
    """The number of iterations since the best score."""
    return done[-1].number - best(done).number


def model_folder(directory: Path, number: int) -> Path:
    """The folder of an iteration's model; does not exist for iteration 0, the base."""
    return iteration_folder(directory, number) / MODEL


def read_iterations(directory: Path) -> list[Iteration]:
    """The finished iterations, in order. Raises RunDirectoryError."""
    records = sorted(read_records(directory), key=lambda found: int(found["number"]))
    return [Iteration(**{name: record[name] for name in Iteration.__slots__}) for record in records]


def read_solved(directory: Path, number: int, name: str = HELD_OUT) -> dict[str, bool]:
    """Whether the model of an iteration solves each problem of a set, by problem key."""
    rows = read_jsonl(iteration_folder(directory, number) / EVALUATION)
    return {row["key"]: row["right"] for row in rows if row["set"] == name}


def iteration_folder(directory: Path, number: int) -> Path:
    """The folder of an iteration."""
    return directory / f"iteration-{number:02d}"


def summarized(
    number: int, steps: int, attempts: Sequence[Mapping[str, Any]], solved: Sequence[Mapping[str, Any]]
) -> Iteration:
    """Summarize an iteration from its attempts and its evaluation; see ``loop`` for both."""
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for attempt in attempts:
        counts = found[str(attempt["level"])]
        counts[0] += 1
        counts[1] += attempt["right"] and not attempt["hinted"]
        counts[2] += attempt["right"] and attempt["hinted"]
    levels: dict[str, dict[str, tuple[int, int]]] = {}
    for row in solved:
        right, of = levels.setdefault(row["set"], {}).get(str(row["level"]), (0, 0))
        levels[row["set"]][str(row["level"])] = (right + row["right"], of + 1)
    return Iteration(
        number=number,
        steps=steps,
        tried=len(attempts),
        generated=sum(counts[1] for counts in found.values()),
        rationalized=sum(counts[2] for counts in found.values()),
        scores={
            name: sum(right for right, _ in rows.values()) / sum(of for _, of in rows.values())
            for name, rows in levels.items()
        },
        levels=levels,
        by_level={level: (counts[0], counts[1], counts[2]) for level, counts in sorted(found.items())},
    )
