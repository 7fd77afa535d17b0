"""The summary of a run: its records, read once, in numbers."""

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
"""Fields of a problem's ``meta`` by which accuracy is also given; the subject of a pocket problem is its family."""


@dataclass(slots=True)
class _Group:
    records: int = 0
    right: int = 0

    def add(self, correct: bool) -> None:
        self.records += 1
        self.right += correct


@dataclass(slots=True)
class Summary:
    """What ``summary.json`` says. Rates are fractions; token counts are of what follows the prompt.

    Attributes:
        problems, records, right: counts.
        accuracy: the share of the records that is right.
        interval: 95%, Wilson's, with each *problem* as one trial: the samples of a problem are no independent ones.
        samples: the most of one problem.
        majority: right by the majority vote (see ``votes``), over problems; for several samples, not of programs.
        majority_interval: 95%, Wilson's.
        pass_at: k → unbiased pass@k, over the problems that have as many samples.
        groups: field of ``meta`` → its value → problems' records, right, accuracy.
        outcomes, reasons: records by how the trace ended, by why it counts as right or wrong.
        tool_rate, unhinted_rate: the share of records with a tool call, with one that no hint began.
        tool_calls, hints, tokens: a record, on average, over all traces that its answer took.
        traces: so many, on average; 1 but where a strategy makes several.
        hint_yield: the share of hints whose code was run.
        model_tokens, total_tokens: in all.
        seconds, wait_seconds, queue_seconds: a record, on average; from start to verdict, and over its traces waiting
            for a kernel, and waiting to be let into the engine.
        turns: requests to the engine for a record, on average.
        decoded_tokens, fed_tokens, reused_tokens: of the engine, in all; see ``decoding.events.Cost``.
        reprefilled_share: of the tokens fed, those whose KV had been computed before.
        preemptions: how often the engine dropped a trace's KV under way, in all.
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
    """The summary of records, read once.

    Args:
        records: in any order; their traces are not looked at.
        samples: of each problem, as the run was told: a problem with so many is complete and forgotten. Where it is
            too small, problems are counted more than once.
    """
    found = Summary()
    open_problems: dict[str, Votes] = {}
    closed = _Closed()
    totals: Counter[str] = Counter()
    stats: Counter[str] = Counter()  # of seconds too
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
        if not totals["programs"]:  # two programs that do the same are seldom the same text
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
    """The problems whose samples have all been read: sums, and how many have how many right of how many."""

    def __init__(self) -> None:
        self.problems = self.majority = self.most = 0
        self._kinds: Counter[tuple[int, int]] = Counter()  # (tries, right)

    def add(self, votes: Votes) -> None:
        self.problems += 1
        self.majority += votes.majority_right
        self.most = max(self.most, votes.tries)
        self._kinds[votes.tries, votes.right] += 1

    def pass_at(self) -> dict[int, float]:
        """For each power of two up to the samples, and for their number itself."""
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
