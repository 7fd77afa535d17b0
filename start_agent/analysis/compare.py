"""Paired comparison of runs on the same problems: each later run with the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from statistics import fmean

from start_agent.analysis.stats import (
    mcnemar_p_value,
    mean_interval,
    paired_interval,
    sign_flip_p_value,
    wilson_interval,
)
from start_agent.analysis.votes import Votes
from start_agent.batch.record import traces_of
from start_agent.batch.store import read_records
from start_agent.errors import InputError, RunDirectoryError

MCNEMAR = "McNemar"
"""The exact test for paired single samples."""

SIGN_FLIP = "sign-flip"
"""The exact permutation test of the mean differences per problem."""

SIGN_FLIP_DRAWN = "sign-flip (drawn)"
"""The same with random permutations, where there are too many to enumerate."""


@dataclass(slots=True)
class Solved:
    """A problem in one run: sums over its samples. Tokens and calls include all traces of an answer."""

    question: str
    samples: int = 0
    right: int = 0
    tokens: int = 0
    tool_calls: int = 0
    with_tool: int = 0
    traces: int = 0

    @property
    def accuracy(self) -> Fraction:
        """The share of correct samples."""
        return Fraction(self.right, self.samples)

    @property
    def solved(self) -> bool:
        """Whether most samples are correct."""
        return 2 * self.right > self.samples


@dataclass(frozen=True, slots=True)
class Side:
    """One run on the common problems; all fields but the name are means over problems or samples.

    ``tokens``, ``tool_calls`` and ``traces`` are per answer, over all its traces if a strategy made several.
    """

    name: str
    accuracy: float
    interval: tuple[float, float]
    tool_rate: float
    tool_calls: float
    tokens: float
    traces: float


@dataclass(frozen=True, slots=True)
class Pair:
    """A later run compared with the first.

    Attributes:
        name: name of the later run.
        difference: difference of the accuracies, later minus first.
        interval: 95% interval of the difference: Newcombe's for single samples, else the paired t interval over
            problems.
        test: ``MCNEMAR`` if both have one sample per problem; else ``SIGN_FLIP`` or ``SIGN_FLIP_DRAWN``, which use all
            samples: the difference of the two means of each problem.
        p_value: two-sided p-value of that test.
        only_first, only_second: keys of the problems that only one of them solves with most of its samples.
        token_ratio: tokens of the later run divided by those of the first; None if the first has none.
    """

    name: str
    difference: float
    interval: tuple[float, float]
    test: str
    p_value: float
    only_first: list[str]
    only_second: list[str]
    token_ratio: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of ``compare``; ``questions`` has those of the problems that only one run of a pair solves."""

    problems: int
    sides: list[Side]
    pairs: list[Pair]
    questions: dict[str, str]


def read_run(path: Path, *, majority: bool = False) -> dict[str, Solved]:
    """The problems of a run directory by key.

    Args:
        path: the directory.
        majority: treat the samples of a problem as a single one, correct if their majority vote is (``votes``), with
            the tokens and calls of all of them.

    Raises:
        RunDirectoryError: it cannot be read, or is not the run of a batch.
    """
    found: dict[str, Solved] = {}
    votes: dict[str, Votes] = {}
    for record in read_records(path, traces=False):
        try:
            counts = record["counts"]
            solved = found.setdefault(record["problem"], Solved(record["question"]))
            solved.samples += 1
            solved.right += record["correct"]
            solved.tokens += counts["tokens"]
            solved.tool_calls += counts["tool_calls"]
            solved.with_tool += counts["tool_calls"] > 0
            solved.traces += traces_of(record)
            if majority:
                votes.setdefault(record["problem"], Votes()).add(record)
        except (KeyError, TypeError) as error:
            raise RunDirectoryError(f"{path} has a record without a valid {error}: it is not a run of batch") from error
    for key, vote in votes.items():
        solved = found[key]
        solved.samples, solved.right, solved.with_tool = 1, int(vote.majority_right), int(solved.with_tool > 0)
    return found


def compare(paths: Sequence[Path]) -> Comparison:
    """Compare run directories. Raises RunDirectoryError, and the errors of ``compare_runs``."""
    return compare_runs({str(path): read_run(path) for path in paths})


def compare_runs(runs: Mapping[str, Mapping[str, Solved]]) -> Comparison:
    """Compare runs on their common problems.

    Args:
        runs: runs by name; the others are compared with the first one.

    Raises:
        InputError: fewer than two runs, or no problem in common.
    """
    if len(runs) < 2:
        raise InputError("a comparison needs at least two different run directories")
    first_name, first = next(iter(runs.items()))
    common = [key for key in first if all(key in run for run in runs.values())]
    if not common:
        counts = ", ".join(f"{name} has {len(run)}" for name, run in runs.items())
        raise InputError(f"these runs have no problem in common ({counts}): compare runs on the same data set")
    sides = [_side(name, [run[key] for key in common]) for name, run in runs.items()]
    pairs = [_pair(name, common, first, run) for name, run in runs.items() if name != first_name]
    named = {key for pair in pairs for key in (*pair.only_first, *pair.only_second)}
    return Comparison(len(common), sides, pairs, {key: first[key].question for key in common if key in named})


def _side(name: str, problems: Sequence[Solved]) -> Side:
    accuracy = fmean(float(problem.accuracy) for problem in problems)
    samples = sum(problem.samples for problem in problems)
    return Side(
        name,
        accuracy,
        wilson_interval(accuracy * len(problems), len(problems)),
        sum(problem.with_tool for problem in problems) / samples,
        sum(problem.tool_calls for problem in problems) / samples,
        sum(problem.tokens for problem in problems) / samples,
        sum(problem.traces for problem in problems) / samples,
    )


def _pair(name: str, keys: Sequence[str], first: Mapping[str, Solved], second: Mapping[str, Solved]) -> Pair:
    both = [(first[key], second[key]) for key in keys]
    flags = [(one.solved, other.solved) for one, other in both]
    differences = [other.accuracy - one.accuracy for one, other in both]
    if all(one.samples == other.samples == 1 for one, other in both):
        interval, test, p_value = paired_interval(flags), MCNEMAR, mcnemar_p_value(flags)
    else:
        interval = mean_interval([float(difference) for difference in differences])
        p_value, exact = sign_flip_p_value(differences)
        test = SIGN_FLIP if exact else SIGN_FLIP_DRAWN
    tokens = [sum(side.tokens / side.samples for side in sides) for sides in zip(*both, strict=True)]
    return Pair(
        name,
        float(sum(differences) / len(differences)),
        interval,
        test,
        p_value,
        [key for key, (one, other) in zip(keys, flags, strict=True) if one and not other],
        [key for key, (one, other) in zip(keys, flags, strict=True) if other and not one],
        tokens[1] / tokens[0] if tokens[0] else None,
    )
