"""Detects held-out problems in a training set: exact duplicates, different spellings, near duplicates.

Two questions are

* the **same** if their keys are equal (``Problem.key``);
* **respelled** if their terms are equal, ignoring case, spaces and irrelevant punctuation;
* **near** if they have the same numbers and operators in the same order, and the Jaccard index of their term n-grams is
  at least the threshold;
* optionally, **reworded** if they have the same numbers and operators in any order, and the same answer: the strictest
  rule, for problems made from templates, where "What is 7 * 12?" and "Compute 7 * 12." are one problem but share few
  n-grams.

Numbers and operators determine the question ("3 + 4" is neither "3 - 4" nor "3 + 5"), so questions that differ in one
of them are never near. This also makes the search fast: only questions with the same numbers are compared, through an
index of their n-grams, so that comparing tens of thousands of questions with thousands takes seconds.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from start_agent.batch.store import RECORDS, read_records
from start_agent.errors import InputError
from start_agent.files import file_digest
from start_agent.problem import Problem
from start_agent.tasks import DataOptions, stream
from start_agent.tasks.definitions import known_tasks
from start_agent.tasks.files import data_files

THRESHOLD = 0.8
"""The Jaccard index of 3-grams from which questions count as near, as usual in MinHash deduplication."""

_NGRAM = 3
# A hyphen between letters and an exclamation mark after anything but a number or a bracket are punctuation.
_TERM = re.compile(r"\d+(?:\.\d+)*|[^\W\d_]+|[+*/^=<>%]|(?<![^\W\d_])-|-(?![^\W\d_])|(?<=[\d)])!")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_SIGNS = str.maketrans({"−": "-", "–": "-", "×": "*", "·": "*", "⋅": "*", "÷": "/"})


@dataclass(frozen=True, slots=True)
class LeakMatch:
    """A match with a held-out problem.

    Attributes:
        kind: same, respelled, near or reworded.
        key: the key of the held-out problem.
        likeness: the Jaccard index of term n-grams.
    """

    kind: str
    key: str
    likeness: float = 1.0


def terms(question: str) -> list[str]:
    """The words, numbers and operators of a question in order, case-folded."""
    text = unicodedata.normalize("NFKC", question.translate(_SIGNS)).casefold()
    return _TERM.findall(_THOUSANDS.sub("", text))


def normalised(question: str) -> str:
    """The question's terms in one line: equal for questions that differ only in spelling."""
    return " ".join(terms(question))


class HeldOut:
    """Held-out problems, which must not be in a training set.

    Args:
        problems: the held-out problems.
        threshold: the Jaccard index from which a question counts as near; above 1, none does.
        reworded: whether a question with the same numbers and the same answer counts, too.
    """

    def __init__(
        self, problems: Iterable[Problem] = (), *, threshold: float = THRESHOLD, reworded: bool = False
    ) -> None:
        self.threshold, self.reworded = threshold, reworded
        self._keys: set[str] = set()
        self._respelled: dict[bytes, str] = {}
        self._by_numbers: dict[bytes, str] = {}
        self._ngrams: dict[tuple[bytes, str], list[int]] = defaultdict(list)  # (numbers, n-gram) → indices
        self._sizes: list[tuple[str, int]] = []
        for problem in problems:
            self.add(problem.question, problem.key, problem.answer)

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, question: str, key: str, answer: str = "") -> None:
        """Add a held-out question; without its answer it cannot be found as reworded."""
        if key in self._keys:
            return
        self._keys.add(key)
        words = terms(question)
        self._respelled.setdefault(_digest(words), key)
        if (same := _with_answer(words, answer)) is not None:
            self._by_numbers.setdefault(same, key)
        ngrams, numbers = _ngrams(words), _numbers(words)
        for ngram in ngrams:
            self._ngrams[numbers, ngram].append(len(self._sizes))
        self._sizes.append((key, len(ngrams)))

    def match(self, question: str, key: str, answer: str = "") -> LeakMatch | None:
        """The held-out problem that a question duplicates; None if there is none."""
        if key in self._keys:
            return LeakMatch("same", key)
        words = terms(question)
        if words and (respelled := self._respelled.get(_digest(words))) is not None:
            return LeakMatch("respelled", respelled)
        ngrams, numbers = _ngrams(words), _numbers(words)
        shared = Counter(index for ngram in ngrams for index in self._ngrams.get((numbers, ngram), ()))
        best = LeakMatch("near", "", 0.0)
        for index, count in shared.items():
            other, size = self._sizes[index]
            likeness = count / (len(ngrams) + size - count)
            if likeness > best.likeness:
                best = LeakMatch("near", other, likeness)
        if best.key and best.likeness >= self.threshold:
            return best
        same = _with_answer(words, answer) if self.reworded else None
        return None if same is None or same not in self._by_numbers else LeakMatch("reworded", self._by_numbers[same])

    def matches(self, problems: Iterable[Problem]) -> list[tuple[Problem, LeakMatch]]:
        """The problems that are held out, each with its match."""
        found = ((problem, self.match(problem.question, problem.key, problem.answer)) for problem in problems)
        return [(problem, match) for problem, match in found if match is not None]


def read_held_out(names: Sequence[str], threshold: float = THRESHOLD, *, reworded: bool = False) -> HeldOut:
    """Read held-out problems by name.

    Args:
        names: tasks, run directories, or files with the columns ``question`` and ``answer``.
        threshold: see ``HeldOut``.
        reworded: see ``HeldOut``.

    Raises:
        InputError: a name is unknown or cannot be read.
    """
    held_out = HeldOut(threshold=threshold, reworded=reworded)
    for name in names:
        path = Path(name).expanduser()
        if (path / RECORDS).is_file():
            for record in read_records(path, traces=False):
                held_out.add(record["question"], record["problem"], record["gold"])
            continue
        if name in known_tasks():
            options = DataOptions(task=name)
        else:
            options = DataOptions(data=name, question_column="question", answer_column="answer")
        for problem in stream(options):
            held_out.add(problem.question, problem.key, problem.answer)
    return held_out


def held_out_digests(names: Sequence[str]) -> dict[str, str]:
    """The sha256 of each run's records and of each file, by path; generated tasks and Hub data sets have none.

    Raises:
        InputError: a file cannot be read.
    """
    found: dict[str, str] = {}
    for name in names:
        path = Path(name).expanduser()
        if (path / RECORDS).is_file():
            files = [path / RECORDS]
        elif name in known_tasks() or not path.exists():
            continue
        else:
            files = data_files(path)
        for file in files:
            try:
                found[str(file)] = file_digest(file)
            except OSError as error:
                raise InputError(f"--held-out: cannot read {file}: {error.strerror}") from error
    return found


def _digest(words: list[str]) -> bytes:
    return sha256(" ".join(words).encode()).digest()


def _numbers(words: list[str]) -> bytes:
    """A digest of the numbers and operators of a question, i.e. of all terms that are not words."""
    return _digest([word for word in words if not word[0].isalpha()])


def _with_answer(words: list[str], answer: str) -> bytes | None:
    """A digest of the numbers and operators of a question, in any order, with its answer; None if either is missing."""
    numbers = sorted(word for word in words if not word[0].isalpha())
    return _digest([*numbers, "=", normalised(answer)]) if numbers and answer.strip() else None


def _ngrams(words: list[str]) -> set[str]:
    """The n-grams of terms; the terms themselves if there are fewer."""
    count = len(words) - _NGRAM + 1
    return {" ".join(words[at : at + _NGRAM]) for at in range(count)} if count > 0 else set(words)
