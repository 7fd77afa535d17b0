"""Computes the summary of a run in one pass over its records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from start_agent.analysis.stats import pass_at_k, wilson_interval
from start_agent.analysis.votes import Votes
from start_agent.batch.record import traces_of
from start_agent.batch.store import read_records

GROUPS = ("level", "subject")
"""Fields of a problem's ``meta`` by which accuracy is grouped; the subject of a pocket problem is its family."""


@dataclass(slots=True)
class _Group:
    records: int = 0
    right: int = 0

    def add(self, correct: bool) -> None:
        self.records += 1
        self.right += correct


@dataclass(slots=True)
class Summary:
    """The content of ``summary.json``. Rates are fractions; token counts exclude the prompt.

    Attributes:
        problems, records, right: number of problems, records, and correct records.
        accuracy: share of correct records.
        interval: Wilson's 95% interval with each *problem* as one trial, since samples of a problem are not
            independent.
        samples: maximum samples per problem.
        majority: share of problems with a correct majority vote (see ``votes``); for several samples, not of programs.
        majority_interval: Wilson's 95% interval.
        pass_at: k → unbiased pass@k, over the problems with at least k samples.
        groups: field of ``meta`` → its value → records, correct records, accuracy.
        outcomes, reasons: records by outcome of the trace, and by reason of the verdict.
        tool_rate, unhinted_rate: share of records with a tool call, and with one not started by a hint.
        tool_calls, hints, tokens: means per record, over all traces of its answer.
        traces: mean traces per record; 1 unless a strategy makes several.
        hint_yield: share of hints whose code was run.
        model_tokens, total_tokens: totals.
        seconds, wait_seconds, queue_seconds: means per record: from start to verdict, waiting for a kernel, and waiting
            for admission to the engine (the latter two over all its traces).
        turns: mean requests to the engine per record.
        decoded_tokens, fed_tokens, reused_tokens: totals of the engine; see ``decoding.events.Cost``.
        reprefilled_share: share of computed tokens whose KV had been computed before.
        preemptions: how often the engine dropped the KV of a running trace.
    """

    problems: int = 0
    records: int = 0
    right: int = 0
    accuracy: float | None = None
    interval: tuple[float, float] | None = None
    samples: int = 0
    majority: float | None = None
    majority_interval: tuple[float, float] | None = None
    pass_at: dict[int, float] = field(default_factory=dict)
    groups: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    tool_rate: float = 0.0
    unhinted_rate: float = 0.0
    tool_calls: float = 0.0
    hints: float = 0.0
    hint_yield: float | None = None
    tokens: float = 0.0
    traces: float = 0.0
    model_tokens: int = 0
    total_tokens: int = 0
    seconds: float = 0.0
    wait_seconds: float = 0.0
    queue_seconds: float = 0.0
    turns: float = 0.0
    decoded_tokens: int = 0
    fed_tokens: int = 0
    reused_tokens: int = 0
    reprefilled_share: float | None = None
    preemptions: int = 0


def summarize(path: Path, samples: int = 1) -> Summary:
    """The summary of a run directory. Raises RunDirectoryError. See ``summary_of``."""
    return summary_of(read_records(path, traces=False), samples)


def summary_of(records: Iterable[Mapping[str, Any]], samples: int = 1) -> Summary:
    """The summary of records, in one pass.

    Args:
        records: records in any order; their traces are not read.
        samples: samples per problem, as configured: a problem with this many is complete and dropped from memory. If
            it is too small, problems are counted more than once.
    """
    found = Summary()
    open_problems: dict[str, Votes] = {}
    closed = _Closed()
    totals: Counter[str] = Counter()
    stats: Counter[str] = Counter()  # counts and seconds
    outcomes: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    groups: dict[str, dict[str, _Group]] = {}
    for record in records:
        counts = record["counts"]
        found.records += 1
        found.right += record["correct"]
        totals.update(counts)
        totals["traces"] += traces_of(record)
        totals["with_tool"] += counts["tool_calls"] > 0
        totals["with_unhinted"] += counts["unhinted_tool_calls"] > 0
        totals["programs"] += record["kind"] == "code"
        stats.update(record["course"])
        outcomes[str(record["outcome"])] += 1
        reasons[record["verdict"]["reason"]] += 1
        for name in GROUPS:
            if (value := record["meta"].get(name)) is not None:
                groups.setdefault(name, {}).setdefault(str(value), _Group()).add(record["correct"])
        votes = open_problems.setdefault(record["problem"], Votes())
        votes.add(record)
        if votes.tries >= samples:
            closed.add(open_problems.pop(record["problem"]))
    for votes in open_problems.values():
        closed.add(votes)
    if not found.records:
        return found
    found.problems, found.samples = closed.problems, closed.most
    found.accuracy = found.right / found.records
    found.interval = wilson_interval(found.accuracy * found.problems, found.problems)
    if closed.most > 1:
        found.pass_at = closed.pass_at()
        if not totals["programs"]:  # equivalent programs rarely have the same text
            found.majority = closed.majority / closed.problems
            found.majority_interval = wilson_interval(closed.majority, closed.problems)
    found.groups = {name: _rows(values) for name, values in sorted(groups.items())}
    found.outcomes, found.reasons = dict(outcomes.most_common()), dict(reasons.most_common())
    found.tool_rate = totals["with_tool"] / found.records
    found.unhinted_rate = totals["with_unhinted"] / found.records
    found.tool_calls = totals["tool_calls"] / found.records
    found.hints = totals["hints"] / found.records
    if totals["hints"]:
        found.hint_yield = (totals["tool_calls"] - totals["unhinted_tool_calls"]) / totals["hints"]
    found.tokens = totals["tokens"] / found.records
    found.traces = totals["traces"] / found.records
    found.model_tokens, found.total_tokens = totals["model_tokens"], totals["tokens"]
    found.seconds = stats["seconds"] / found.records
    found.wait_seconds = stats["wait_seconds"] / found.records
    found.queue_seconds = stats["queue_seconds"] / found.records
    found.turns = stats["turns"] / found.records
    found.decoded_tokens, found.fed_tokens, found.reused_tokens = stats["decoded"], stats["fed"], stats["reused"]
    if stats["fed"]:
        found.reprefilled_share = stats["again"] / stats["fed"]
    found.preemptions = stats["preempted"]
    return found


class _Closed:
    """Sums over problems whose samples have all been read, and their numbers by tries and correct samples."""

    def __init__(self) -> None:
        self.problems = self.majority = self.most = 0
        self._kinds: Counter[tuple[int, int]] = Counter()  # (tries, right)

    def add(self, votes: Votes) -> None:
        self.problems += 1
        self.majority += votes.majority_right
        self.most = max(self.most, votes.tries)
        self._kinds[votes.tries, votes.right] += 1

    def pass_at(self) -> dict[int, float]:
        """pass@k for each power of two up to the number of samples, and for that number."""
        wanted = {1 << power for power in range(self.most.bit_length())} | {self.most}
        found = {}
        for k in sorted(wanted):
            kinds = {kind: number for kind, number in self._kinds.items() if kind[0] >= k}
            total = sum(pass_at_k(tries, right, k) * number for (tries, right), number in kinds.items())
            found[k] = total / sum(kinds.values())
        return found


def _rows(values: Mapping[str, _Group]) -> dict[str, dict[str, float]]:
    return {
        value: {"records": group.records, "right": group.right, "accuracy": group.right / group.records}
        for value, group in sorted(values.items())
    }
