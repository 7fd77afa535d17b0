"""Multiple choice: the letter that an answer names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from start_agent.grading.math import answer_text, plain_text
from start_agent.grading.verdict import Reason, Verdict
from start_agent.problem import LETTERS

_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}")
_LETTER = re.compile(
    r"(?:(?:option|choice|answer)\s*:?\s*)?"
    r"(?:\((?P<enclosed>[a-z])\)[.:,-]?\s*(?P<after>.*)|(?P<bare>[a-z])(?:\s*[.):,-]\s*(?P<said>.*)|\s+\((?P<gloss>.*)\))?)",
    re.IGNORECASE | re.DOTALL,
)


def grade_choice(pred: str | None, gold: str, choices: Sequence[str] = ()) -> Verdict:
    r"""Judge an answer to a multiple-choice question.

    ``B``, ``(B)``, ``B. mall``, ``\text{B}``, ``Option B`` and the text of exactly one choice name a letter. Several
    letters name none.

    Args:
        pred: the answer, or a text with a box of which the last closed one counts; None for no answer.
        gold: the letter of the right choice.
        choices: the texts of the choices, in order; without them every letter is possible, and no text.
    """
    gold = gold.strip().upper()
    answer = None if pred is None else answer_text(pred)
    if answer is None:
        return Verdict(False, None, Reason.NO_ANSWER, gold)
    letter = read_letter(answer, choices)
    if letter is None:
        return Verdict(False, answer[:300], Reason.UNREADABLE, gold, "it names no single choice")
    return Verdict(letter == gold, letter, Reason.EQUAL if letter == gold else Reason.DIFFERENT, gold)


def read_letter(answer: str, choices: Sequence[str] = ()) -> str | None:
    """The letter that an answer names; None where it names none or more than one."""
    text = _TEXT.sub(r"\1", answer).replace("$", "").replace("*", "").strip().removesuffix(".").strip()
    letters = LETTERS[: len(choices)] if choices else LETTERS
    if found := _LETTER.fullmatch(text):
        letter = (found["enclosed"] or found["bare"]).upper()
        rest = found["after"] or found["said"] or found["gloss"] or ""
        # "A, B" and "A) or B)" name two; "A. a" is a choice with its text.
        others = re.findall(r"(?<![\w'])[A-Z](?![\w'])", rest) if not _is_choice(rest, choices) else []
        return letter if letter in letters and set(others) <= {letter} else None
    matching = [letter for letter, choice in zip(letters, choices, strict=False) if _is_choice(text, [choice])]
    return matching[0] if len(matching) == 1 else None


def _is_choice(text: str, choices: Sequence[str]) -> bool:
    return any(plain_text(text).casefold() == plain_text(choice).casefold() for choice in choices)
