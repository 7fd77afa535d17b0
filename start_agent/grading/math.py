r"""Mathematical answers: what can be decided from the text alone.

``preliminary`` settles numbers and equal texts in the caller's own process; only what it leaves open goes to
Math-Verify, in a process that can be killed (``expressions``, ``worker``).
"""

from __future__ import annotations

import re

from start_agent.answers import last_boxed
from start_agent.grading.numbers import equal_numbers, read_number
from start_agent.grading.verdict import Reason, Verdict

MAX_CHARS = 2000
"""A longer answer is not parsed. The longest gold answer of MATH has 159 characters."""

_LEAD = re.compile(r"(?:so |thus |hence |therefore )?,?\s*(?:the )?(?:final )?answer(?: is|:)+\s*", re.IGNORECASE)
_WRAPPERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"))
_PERCENT_SIGN = re.compile(r"\s*(?:\\?%|\\text\s*\{\s*(?:percent|\\?%)\s*\}|\bpercent\b)\s*$", re.IGNORECASE)
_TEXT = re.compile(r"\\(?:text|mbox|textbf|textit|textrm|mathrm|mathbf|operatorname)\s*\{([^{}]*)\}")
_SPACES = re.compile(r"\\[!,;: ]|\\q?quad|~|(?<!\d)\s+|\s+(?!\d)|\\left(?![a-z])|\\right(?![a-z])|\\displaystyle")


def answer_text(text: str) -> str | None:
    r"""The answer in a text: the content of its last closed box, or all of a text without a box.

    None where there is a box but none is closed, or where nothing is left. A lead ("The answer is"), math signs
    around the whole and a full stop at its end are taken away.
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
    r"""A text without what changes nothing about its meaning: spaces but between digits, ``\text``, spellings."""
    text = _TEXT.sub(r"\1", text)
    text = _SPACES.sub("", text).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").replace("\\%", "%")
    text = text.replace("\\$", "").removesuffix(".")
    return text.casefold() if text.replace("-", "").isalpha() and len(text) > 1 else text


def asks_for_percentage(question: str) -> bool:
    """Whether a question asks for a number of percent: its last sentence speaks of them."""
    sentences = re.split(r"(?<=[.?!])(?<!\b[MD]r\.)(?<!\bMs\.)(?<!\bMrs\.)\s+", question.strip())
    return re.search(r"percent|\d\s*\\?%|\bwhat\s*\\?%|\ba\s*\\?%", sentences[-1], re.IGNORECASE) is not None


def without_percent(text: str) -> str:
    """The answer in a text, without its percent sign; the text itself where it has no answer."""
    answer = answer_text(text)
    return text if answer is None else _PERCENT_SIGN.sub("", answer)


def preliminary(pred: str | None, gold: str) -> Verdict | None:
    """The verdict, where the texts decide it; None where mathematics must."""
    gold_answer = answer_text(gold) or gold.strip()
    answer = None if pred is None else answer_text(pred)
    if answer is None:
        detail = "the box is not closed" if pred and "\\boxed" in pred else ""
        return Verdict(False, None, Reason.NO_ANSWER, gold_answer, detail)
    gold_number, number = read_number(gold_answer), read_number(answer)
    if gold_number and number:
        right = equal_numbers(gold_number, number)
        detail = ""
        if not right and gold_number.value == number.value:
            detail = "the same number, but only one of them is a percentage"
        return Verdict(right, str(number), Reason.EQUAL if right else Reason.DIFFERENT, str(gold_number), detail)
    if plain_text(answer) == plain_text(gold_answer):
        return Verdict(True, answer, Reason.EQUAL, gold_answer)
    if len(answer) > MAX_CHARS or len(gold_answer) > MAX_CHARS:
        detail = f"longer than {MAX_CHARS:,} characters: not parsed"
        return Verdict(False, answer[:MAX_CHARS], Reason.UNREADABLE, gold_answer[:MAX_CHARS], detail)
    return None
