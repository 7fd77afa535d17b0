"""Selects training traces from run directories, and reports why the others were left out.

::

    selection = hint_rft_pairs([Path("runs/greedy")], [Path("runs/hinted")], tokenizer, SelectionOptions())
    selection = rft([Path("runs/sampled")], tokenizer, SelectionOptions(choice=Choice.SHORTEST))
    for chosen in selection: ...            # a Chosen: record and trace, possibly repaired
    print(selection.report.to_json())

The runs are read twice, one record at a time: first all traces are filtered, keeping only their keys and ranks; then
the selected ones are read again. So memory grows with the number of problems, not with the length of traces.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from start_agent.batch.store import read_records
from start_agent.data.filters import Candidate, FilterOptions, leaked, refused_by
from start_agent.data.leakage import HeldOut
from start_agent.data.repairs import repair
from start_agent.data.rows import MODIFICATIONS
from start_agent.errors import DataError
from start_agent.seeds import derive_seed
from start_agent.tokens.ngrams import ngram_hashes
from start_agent.tokens.tokenizer import Tokenizer
from start_agent.trace import SpanKind, Trace


class Choice(StrEnum):
    """Which of several correct traces of a problem is kept. Ties are broken by a draw from the seed."""

    SHORTEST = "shortest"
    """The trace with the fewest tokens."""
    FEWEST_FAILED = "fewest_failed"
    """The trace with the fewest failed cells; the shortest of these."""
    MOST_CELLS = "most_cells"
    """The trace with the most executed cells; the shortest of these."""
    DIVERSE = "diverse"
    """The trace with the lowest mean similarity to the other correct traces of its problem (Jaccard index of token
    4-grams of the model's text, estimated by MinHash)."""
    RANDOM = "random"
    """A random trace."""


class SelectionOptions(BaseModel):
    """How traces are chosen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    choice: Choice = Field(Choice.SHORTEST, description="which of the correct traces of a problem is kept")
    seed: int = Field(0, ge=0, description="seed for ties and draws")
    repair: bool = Field(
        False,
        description="repair traces before filtering (see `start_agent.data.repairs`): tokens are removed, so a "
        "repaired trace is no longer exactly what the model generated",
    )
    max_rows: int | None = Field(None, ge=1, description="maximum number of problems, drawn at random")


@dataclass(slots=True)
class SelectionReport:
    """Counts of all records by what happened to them.

    Attributes:
        kind: hint-rft or rft.
        records: records in the runs.
        problems: problems in the runs.
        wrong: records with an incorrect answer.
        greedy_right: correct records of problems that were also solved without hints.
        greedy_right_problems: number of these problems.
        no_greedy: records of problems that are not in the greedy runs.
        refused: correct records by the first filter that rejected them.
        passed: records that passed all filters.
        passed_problems: problems with at least one such record.
        not_chosen: passed records that were not kept, because of another trace of the problem or of ``max_rows``.
        kept: kept records, one per problem.
        repaired: kept records by their repairs.
    """

    kind: str
    records: int = 0
    problems: int = 0
    wrong: int = 0
    greedy_right: int = 0
    greedy_right_problems: int = 0
    no_greedy: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    passed: int = 0
    passed_problems: int = 0
    not_chosen: int = 0
    kept: int = 0
    repaired: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready object."""
        return {name: _plain(getattr(self, name)) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Chosen:
    """A selected trace, possibly repaired, with its record (without the trace).

    ``run`` is the path of the run and ``source`` the sha256 of the stored trace (``trace_digest``): with the record's
    key they identify the source exactly.
    """

    record: dict[str, Any]
    trace: Trace
    run: str
    source: str


Place = tuple[int, str]
"""The index of a run and the key of a record in it. (Runs of the same problems have the same keys.)"""


@dataclass(frozen=True, slots=True)
class Selection:
    """The selected traces. Iterating reads them again, in the order of the runs.

    ``places`` identifies the records.
    """

    report: SelectionReport
    places: frozenset[Place]
    runs: tuple[Path, ...]
    tokenizer: Tokenizer
    options: SelectionOptions

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[Chosen]:
        found = 0
        for number, path in enumerate(self.runs):
            for record in read_records(path):
                if (number, record["key"]) in self.places:
                    found += 1
                    stored = record.pop("trace")
                    trace = _trace(stored, self.tokenizer, self.options)
                    yield Chosen(record, trace, str(path), trace_digest(stored))
        if found != len(self.places):
            raise DataError("records of a run have disappeared since the selection was made: select again")


def hint_rft_pairs(
    greedy: Sequence[Path],
    hinted: Sequence[Path],
    tokenizer: Tokenizer,
    options: SelectionOptions | None = None,
    filters: FilterOptions | None = None,
    held_out: HeldOut | None = None,
) -> Selection:
    """Select hinted traces of problems that the model solves with a hint but not without.

    Args:
        greedy: runs without hints. A problem counts as solved if any of its traces is correct.
        hinted: runs with hints.
        tokenizer: tokenizer of the model that made the runs.
        options: how one of several traces is chosen, and whether traces are repaired.
        filters: thresholds of the filters.
        held_out: problems that must not be selected.

    Raises:
        RunDirectoryError: a run cannot be read.
        DataError: a run was changed while it was read.
    """
    solved: dict[str, bool] = {}
    for path in greedy:
        for record in read_records(path, traces=False):
            solved[record["problem"]] = solved.get(record["problem"], False) or record["correct"]
    return _select("hint-rft", hinted, tokenizer, options, filters, held_out, solved)


def rft(
    runs: Sequence[Path],
    tokenizer: Tokenizer,
    options: SelectionOptions | None = None,
    filters: FilterOptions | None = None,
    held_out: HeldOut | None = None,
) -> Selection:
    """Select correct traces, at most one per problem. Arguments and errors as for ``hint_rft_pairs``."""
    return _select("rft", runs, tokenizer, options, filters, held_out, None)


def _select(
    kind: str,
    runs: Sequence[Path],
    tokenizer: Tokenizer,
    options: SelectionOptions | None,
    filters: FilterOptions | None,
    held_out: HeldOut | None,
    solved: dict[str, bool] | None,
) -> Selection:
    options, filters = options or SelectionOptions(), filters or FilterOptions()
    report = SelectionReport(kind)
    problems: set[str] = set()
    right_alone: set[str] = set()
    passed: dict[str, list[_Ranked]] = defaultdict(list)  # by problem
    for number, path in enumerate(runs):
        for record in read_records(path):
            report.records += 1
            problem = record["problem"]
            problems.add(problem)
            if not record["correct"]:
                report.wrong += 1
            elif solved is not None and problem not in solved:
                report.no_greedy += 1
            elif solved is not None and solved[problem]:
                report.greedy_right += 1
                right_alone.add(problem)
            elif (leak := leaked(record, held_out)) is not None:
                report.refused[leak] += 1
            else:
                candidate = Candidate.of(record, _trace(record["trace"], tokenizer, options), tokenizer)
                refusal = refused_by(candidate, filters)
                if refusal is None:
                    passed[problem].append(_Ranked.of((number, candidate.key), candidate, options))
                else:
                    report.refused[refusal] += 1
    report.problems, report.greedy_right_problems = len(problems), len(right_alone)
    report.passed, report.passed_problems = sum(map(len, passed.values())), len(passed)
    chosen = {problem: _choose(ranked, options.choice) for problem, ranked in passed.items()}
    drawn = sorted(chosen, key=lambda problem: derive_seed(options.seed, f"row {problem}"))[: options.max_rows]
    kept = [chosen[problem] for problem in drawn]
    report.kept, report.not_chosen = len(kept), report.passed - len(kept)
    report.repaired.update(name for one in kept for name in one.repairs)
    return Selection(report, frozenset(one.place for one in kept), tuple(runs), tokenizer, options)


@dataclass(frozen=True, slots=True)
class _Ranked:
    """What is stored of a trace that passed the filters; the one with the lowest ``rank`` is chosen."""

    place: Place
    rank: tuple[int, ...]
    repairs: tuple[str, ...]
    signature: tuple[int, ...] = ()

    @classmethod
    def of(cls, place: Place, candidate: Candidate, options: SelectionOptions) -> _Ranked:
        length, draw = candidate.trace.count(), derive_seed(options.seed, f"choice {place[0]} {place[1]}")
        rank: tuple[int, ...]
        match options.choice:
            case Choice.SHORTEST:
                rank = (length, draw)
            case Choice.FEWEST_FAILED:
                rank = (candidate.failed_cells, length, draw)
            case Choice.MOST_CELLS:
                rank = (-len(candidate.outputs), length, draw)
            case Choice.DIVERSE | Choice.RANDOM:
                rank = (draw,)
        signature = minhash(candidate.trace) if options.choice is Choice.DIVERSE else ()
        return cls(place, rank, tuple(candidate.trace.meta.get(MODIFICATIONS, ())), signature)

    def likeness(self, others: Iterable[_Ranked]) -> float:
        """The sum of its similarities to others, each estimated by the share of equal minima."""
        return sum(
            sum(one == other for one, other in zip(self.signature, them.signature, strict=True)) / len(self.signature)
            for them in others
            if them is not self
        )


_HASHES, _NGRAM = 64, 4


def minhash(trace: Trace) -> tuple[int, ...]:
    """The MinHash signature of the token 4-grams of the model's text: the minimum of each of 64 hash functions.

    The share of equal entries of two signatures estimates the Jaccard index of their 4-grams (Broder 1997), with a
    standard error of at most 1/16.
    """
    import numpy as np

    ids = [token_id for span in trace.of_kind(SpanKind.MODEL) for token_id in span.token_ids]
    hashes = ngram_hashes(ids, min(_NGRAM, len(ids) or 1))
    if not len(hashes):
        return (0,) * _HASHES
    # Odd multipliers permute the 64-bit numbers; the high bits of the products are compared.
    odd = np.array([derive_seed(0, f"minhash {number}") | 1 for number in range(_HASHES)], dtype=np.uint64)
    return tuple(int((hashes * factor >> np.uint64(32)).min()) for factor in odd)


def trace_digest(stored: dict[str, Any]) -> str:
    """The sha256 of the kinds and ids of a stored trace's spans, which determine the row."""
    digest = sha256()
    for span in stored["spans"]:
        digest.update(f"{span['kind']}:{' '.join(map(str, span['token_ids']))};".encode())
    return digest.hexdigest()


def _choose(ranked: list[_Ranked], choice: Choice) -> _Ranked:
    if choice is Choice.DIVERSE:
        return min(ranked, key=lambda one: (one.likeness(ranked), one.rank))
    return min(ranked, key=lambda one: one.rank)


def _trace(stored: dict[str, Any], tokenizer: Tokenizer, options: SelectionOptions) -> Trace:
    trace = Trace.from_json(stored)
    return repair(trace, tokenizer) if options.repair else trace


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else value
