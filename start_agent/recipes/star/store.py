"""What a run of STaR keeps: the folders of its iterations, and what it knows of those that have ended."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from start_agent.batch.store import read_records

DEV, HELD_OUT = "dev", "held-out"
GENERATED, RATIONALIZED, ROWS = "generated.jsonl", "rationalized.jsonl", "rows.jsonl"
MODEL, EVALUATION = "model", "evaluation.jsonl"


@dataclass(frozen=True, slots=True)
class Iteration:
    """An iteration that has ended.

    Attributes:
        number: from 1; 0 is the base, which is only evaluated.
        steps: of training.
        tried: problems.
        generated: of them, right without help.
        rationalized: right once the answer was shown.
        scores: accuracy by set (``dev``, ``held-out``).
        levels: by set and by level of the problems, how many were right, of how many.
        by_level: of the problems tried, by level: tried, generated, rationalized.
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
    """The iteration with the highest score on the development set; the earliest of equals."""
    return max(done, key=lambda iteration: (iteration.scores[DEV], -iteration.number))


def stale(done: Sequence[Iteration]) -> int:
    """For how many iterations the score has not risen."""
    return done[-1].number - best(done).number


def model_folder(directory: Path, number: int) -> Path:
    """Where the model of an iteration is; the base, iteration 0, has none there."""
    return iteration_folder(directory, number) / MODEL


def read_iterations(directory: Path) -> list[Iteration]:
    """The iterations that have ended, in order; none where there are none yet. Raises RunDirectoryError."""
    records = sorted(read_records(directory), key=lambda found: int(found["number"]))
    return [Iteration(**{name: record[name] for name in Iteration.__slots__}) for record in records]


def read_solved(directory: Path, number: int, name: str = HELD_OUT) -> dict[str, bool]:
    """By key, which problems of a set the model of an iteration solves."""
    with (iteration_folder(directory, number) / EVALUATION).open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return {row["key"]: row["right"] for row in rows if row["set"] == name}


def iteration_folder(directory: Path, number: int) -> Path:
    """Where an iteration keeps what it made."""
    return directory / f"iteration-{number:02d}"


def summarized(
    number: int, steps: int, attempts: Sequence[Mapping[str, Any]], solved: Sequence[Mapping[str, Any]]
) -> Iteration:
    """An iteration, counted up from its attempts at problems and its evaluation; see ``star`` for both."""
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
