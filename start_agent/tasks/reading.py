"""Converts rows of the supported data sets to problems."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from start_agent.errors import DataError
from start_agent.problem import LETTERS, CodeTests, Kind, Problem
from start_agent.seeds import derive_seed
from start_agent.tasks.task import Row, column, meta_of, text_of
from start_agent.tokens.answers import last_boxed

_LABEL = re.compile(r"^[(\[]?\s*(\w+)\s*[)\].:]?$")
_INDEX = re.compile(r"[0-9]{1,2}")


def gsm8k(row: Row, seed: int) -> Problem:
    """Columns: ``question``, and ``answer`` that ends in "#### 42"."""
    solution, mark, answer = text_of(row, "answer").rpartition("####")
    if not mark:
        raise DataError(f"the column 'answer' has no '####' before the final number: {solution[-60:]!r}")
    return Problem(text_of(row, "question"), answer.strip().replace(",", ""))


def math(row: Row, seed: int) -> Problem:
    """Columns: ``problem`` or ``question``, ``answer`` or ``solution`` with a box, perhaps ``level``, ``subject``."""
    if "answer" in row or "Answer" in row or "solution" not in row:
        answer = text_of(row, "answer", "Answer")
    else:
        boxed = last_boxed(text_of(row, "solution"))
        if boxed is None:
            raise DataError("the column 'solution' has no closed box, and there is no column 'answer'")
        answer = boxed
    meta = meta_of(row, subject="type") | meta_of(row, level="level", subject="subject", id="unique_id")
    return Problem(text_of(row, "problem", "question", "Problem"), answer, meta=meta)


def aime(row: Row, seed: int) -> Problem:
    """Columns as for ``math``; the answer is an integer from 0 to 999, perhaps with leading zeros or a final ".0"."""
    problem = math(row, seed)
    problem = replace(problem, answer=problem.answer.removesuffix(".0"))
    if not (problem.answer.isdecimal() and int(problem.answer) <= 999):
        raise DataError(f"the answer {problem.answer[:40]!r} is not an integer from 0 to 999, as in AIME")
    return problem


def gpqa(row: Row, seed: int) -> Problem:
    """Columns: ``Question``, ``Correct Answer`` and three ``Incorrect Answer N``, shuffled with a seed per question."""
    question, correct = text_of(row, "Question"), text_of(row, "Correct Answer")
    choices = [correct, *(text_of(row, f"Incorrect Answer {number}") for number in (1, 2, 3))]
    order = list(range(len(choices)))
    random.Random(derive_seed(seed, question)).shuffle(order)
    meta = meta_of(row, subject="High-level domain", level="Writer's Difficulty Estimate", id="Record ID")
    return Problem(
        question,
        LETTERS[order.index(0)],
        Kind.CHOICE,
        choices=tuple(choices[place] for place in order),
        meta=meta | {"choice_seed": seed},
    )


def commonsenseqa(row: Row, seed: int) -> Problem:
    """Columns: ``question`` and ``choices`` as on the Hub, or both inside ``question`` as in the published file."""
    question = column(row, "question")
    if isinstance(question, Mapping):
        stem, choices = text_of(question, "stem"), column(question, "choices")
        concept = question.get("question_concept")
    else:
        stem, choices = text_of(row, "question"), column(row, "choices")
        concept = row.get("question_concept")
    texts, labels = read_choices(choices)
    meta = meta_of(row, id="id") | ({"subject": concept} if concept else {})
    answer = choice_letter(text_of(row, "answerKey"), texts, labels)
    return Problem(stem, answer, Kind.CHOICE, choices=texts, meta=meta)


def livecodebench(row: Row, seed: int) -> Problem:
    """Columns: ``question_content``, ``starter_code``, ``public_test_cases``, ``private_test_cases``, ``metadata``.

    ``metadata.func_name`` is the function to call. The tests stay encoded until a program is graded; they are never
    unpickled.
    """
    metadata = row.get("metadata") or "{}"
    try:
        known = json.loads(metadata) if isinstance(metadata, str) else dict(metadata)
        function = str(known.get("func_name") or "")
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"the column 'metadata' is not a JSON object: {str(metadata)[:60]!r}") from error
    tests = CodeTests(
        public=_as_json(column(row, "public_test_cases")),
        private=_as_json(row.get("private_test_cases")),
        function=function,
    )
    return Problem(
        text_of(row, "question_content"),
        "",
        Kind.CODE,
        starter_code=str(row.get("starter_code") or ""),
        tests=tests,
        meta=meta_of(row, level="difficulty", subject="platform", id="question_id")
        | ({"date": str(row["contest_date"])} if row.get("contest_date") else {}),
    )


def by_columns(
    question: str, answer: str, *, level: str = "", subject: str = "", choices: str = ""
) -> Callable[[Row, int], Problem]:
    """A reader for rows with these column names. ``choices`` names a column of lists, for multiple choice."""

    def read(row: Row, seed: int) -> Problem:
        for name in (level, subject):
            if name:
                column(row, name)
        text, gold = text_of(row, question), text_of(row, answer)
        named = {key: name for key, name in (("level", level), ("subject", subject)) if name}
        meta = meta_of(row, **named)
        if not choices:
            return Problem(text, gold, meta=meta)
        offered = column(row, choices)
        texts, labels = read_choices(offered)
        correct = row[answer] if isinstance(row[answer], int) else gold
        if (
            isinstance(correct, int)
            and gold in texts
            and any(isinstance(item, int | float | Decimal) for item in offered)
        ):
            raise DataError(
                f"{correct} may be the correct choice or its index; use its letter, or its text as a string"
            )
        return Problem(text, choice_letter(correct, texts, labels), Kind.CHOICE, choices=texts, meta=meta)

    return read


def read_choices(raw: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The texts and the labels of choices.

    Supported are a list of strings or numbers, a list of objects with ``text`` and optionally ``label``, an object with
    a list of each, and an object whose keys are the labels. In Parquet such an object has all labels of the file;
    those without a value are dropped.

    Raises:
        DataError: the form is not supported, or there are fewer than 2 or more than 26 choices.
    """
    labels: list[Any] = []
    if isinstance(raw, Mapping) and "text" in raw:
        texts, labels = list(raw["text"]), list(raw.get("label") or [])
    elif isinstance(raw, Mapping):
        labels = [name for name in raw if raw[name] is not None]
        texts = [raw[name] for name in labels]
    elif isinstance(raw, Sequence) and not isinstance(raw, str) and all(isinstance(item, Mapping) for item in raw):
        texts = [item.get("text") for item in raw]
        labels = [item["label"] for item in raw if item.get("label") is not None]
    elif isinstance(raw, Sequence) and not isinstance(raw, str):
        texts = list(raw)
    else:
        raise DataError(f"the choices have an unsupported form: {raw!r:.60}")
    labels = labels or list(LETTERS[: len(texts)])
    known = all(isinstance(text, str | int | float | Decimal) and text == text for text in texts)
    if not 2 <= len(texts) <= len(LETTERS) or len(texts) != len(labels) or not known:
        raise DataError(f"the choices have an unsupported form: {raw!r:.60}")
    return tuple(map(str, texts)), tuple(str(label).strip().upper() for label in labels)


def choice_letter(gold: str | int, texts: Sequence[str], labels: Sequence[str]) -> str:
    """The letter under which the gold choice is shown.

    Args:
        gold: a label, optionally in brackets or followed by a dot; the text of a choice; or its index from 0. An
            integer that is not a label is an index, never a text.
        texts: the choices.
        labels: their labels, in capitals.

    Raises:
        DataError: there is no such choice.
    """
    name = str(gold).strip()
    label = _LABEL.sub(r"\1", name).upper()
    if label in labels:
        return LETTERS[labels.index(label)]
    stripped = [text.strip() for text in texts]
    if isinstance(gold, str) and name in stripped:
        return LETTERS[stripped.index(name)]
    if _INDEX.fullmatch(name) and int(name) < len(texts):
        return LETTERS[int(name)]
    others = " or" if isinstance(gold, int) else ", the text of a choice or"
    raise DataError(f"the correct choice {name[:40]!r} is not a label ({', '.join(labels)}){others} an index from 0")


def _as_json(raw: Any) -> str:
    """A column of tests as JSON text: a string is unchanged, a list of rows is serialized."""
    if raw is None or isinstance(raw, str):
        return raw or "[]"
    return json.dumps(raw)
