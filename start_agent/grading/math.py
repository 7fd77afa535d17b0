r"""Grades mathematical answers as far as the text alone decides.

``preliminary`` decides numbers and equal texts in the caller's process; only the remaining answers go to Math-Verify,
in a process that can be killed (``expressions``, ``worker``).
"""

from __future__ import annotations

import re

from start_agent.grading.numbers import equal_numbers, read_number
from start_agent.grading.spelling import spelled, without_brackets
from start_agent.grading.verdict import Reason, Verdict
from start_agent.grading.words import compare_words
from start_agent.tokens.answers import last_boxed

MAX_CHARS = 2000
"""A longer answer is not parsed. The longest gold answer of MATH has 159 characters."""

# "What percent", "by what percentage", "as a percent", "the percent increase", "what % of", "rate (in %)".
_PERCENT = r"(?:per\s?cent(?:age)?s?|\\?%)"
_ASKED = re.compile(
    rf"\b(?:what|which|how many|as a|as an?|in|the|find|nearest|a|whole)\s+"
    rf"(?:(?!is\b|of\b|are\b)[a-z-]+\s+){{0,3}}(?<!\d)(?<!\d ){_PERCENT}",
    re.IGNORECASE,
)
_LETTER = re.compile("[A-Za-z]")
_DOTS = r"\ldots"
_LEAD = re.compile(r"(?:so |thus |hence |therefore )?,?\s*(?:the )?(?:final )?answer(?: is|:)+\s*", re.IGNORECASE)
_WRAPPERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"))
_PERCENT_SIGN = re.compile(r"\s*(?:\\?%|\\text\s*\{\s*(?:percent|\\?%)\s*\}|\bpercent\b)\s*$", re.IGNORECASE)
_TEXT = re.compile(r"\\(?:text|mbox|textbf|textit|textrm|mathrm|mathbf|operatorname)\s*\{([^{}]*)\}")
_SPACES = re.compile(r"\\[!,;: ]|\\q?quad|~|(?<!\d)\s+|\s+(?!\d)|\\left(?![a-z])|\\right(?![a-z])|\\displaystyle")


def answer_text(text: str) -> str | None:
    r"""The answer in a text: the content of its last closed box, or all of a text without a box.

    None if no box is closed, or if the result is empty. An introduction ("The answer is"), enclosing math delimiters
    and a final full stop are removed.
    """
    if "\\boxed" in text:
        boxed = last_boxed(text)
        if boxed is None:
            return None
        text = boxed
    text = text.strip()
    if lead := _LEAD.match(text):
        text = text[lead.end() :]
    text = text.strip().removesuffix(".").strip()
    for begin, end in _WRAPPERS:
        inner = text[len(begin) : len(text) - len(end)]
        if len(text) > len(begin) + len(end) and text.startswith(begin) and text.endswith(end) and begin not in inner:
            text = inner.strip()
    return text.removesuffix(".").strip() or None


def plain_text(text: str) -> str:
    r"""A text without insignificant notation: ``\text``, variants of commands, spaces except between digits."""
    text = _TEXT.sub(r"\1", text)
    text = _SPACES.sub("", text).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").replace("\\%", "%")
    text = text.replace("\\$", "").removesuffix(".")
    return text.casefold() if text.replace("-", "").isalpha() and len(text) > 1 else text


def asks_for_percentage(question: str) -> bool:
    """Whether a question asks for a percentage ("What percent of ..."), not only mentions one ("20% of 50")."""
    return _ASKED.search(question) is not None


def without_percent(text: str) -> str:
    """The answer in a text, without its percent sign; the text itself if it has no answer."""
    answer = answer_text(text)
    return text if answer is None else _PERCENT_SIGN.sub("", answer)


def _by_text(answer: str, gold: str) -> bool | None:
    """Whether the answer is correct, if its normalized text decides that; None if Math-Verify must."""
    if "[" not in gold or answer.count(",") > 1:
        answer = without_brackets(answer)
    gold_number, number = read_number(gold), read_number(answer)
    if gold_number and number:
        return equal_numbers(gold_number, number)
    if plain_text(answer) == plain_text(gold):
        return True
    if (dots := (_DOTS in answer, _DOTS in gold)) != (False, False):
        return dots == (True, True) and _items(answer) == _items(gold)
    return compare_words(gold, answer)


def _items(text: str) -> list[str]:
    """The items of a list with dots, in order."""
    return [plain_text(item).replace(" ", "") for item in re.split(r"[,+]", text) if item.strip()]


def preliminary(pred: str | None, gold: str) -> Verdict | None:
    """The verdict, if the texts decide it; None if Math-Verify must."""
    gold_answer = answer_text(gold) or gold.strip()
    answer = None if pred is None else answer_text(pred)
    if answer is None:
        detail = "the box is not closed" if pred and "\\boxed" in pred else ""
        return Verdict(False, None, Reason.NO_ANSWER, gold_answer, detail)
    gold_number, number = read_number(gold_answer), read_number(answer)
    if gold_number and number:
        correct = equal_numbers(gold_number, number)
        if _LETTER.search(answer) and _LETTER.search(gold_answer):  # 5 m is not 5 km
            by_words = compare_words(spelled(gold_answer), spelled(answer))
            correct = correct if by_words is None else by_words
        detail = ""
        if not correct and gold_number.value == number.value:
            detail = "the same number, but only one of them is a percentage"
        return Verdict(correct, str(number), Reason.EQUAL if correct else Reason.DIFFERENT, str(gold_number), detail)
    if plain_text(answer) == plain_text(gold_answer):
        return Verdict(True, answer, Reason.EQUAL, gold_answer)
    if len(answer) <= MAX_CHARS and len(gold_answer) <= MAX_CHARS:
        by_text = _by_text(spelled(answer), spelled(gold_answer))
        if by_text is not None:
            return Verdict(by_text, answer, Reason.EQUAL if by_text else Reason.DIFFERENT, gold_answer)
    if len(answer) > MAX_CHARS or len(gold_answer) > MAX_CHARS:
        detail = f"longer than {MAX_CHARS:,} characters: not parsed"
        return Verdict(False, answer[:MAX_CHARS], Reason.UNREADABLE, gold_answer[:MAX_CHARS], detail)
    return None
