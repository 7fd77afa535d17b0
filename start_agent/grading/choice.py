"""Grades answers to multiple-choice questions: finds the letter that an answer names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from start_agent.grading.math import MAX_CHARS, answer_text, plain_text
from start_agent.grading.numbers import read_number
from start_agent.grading.spelling import spelled
from start_agent.grading.verdict import Reason, Verdict
from start_agent.grading.words import read_words, unwrapped
from start_agent.problem import LETTERS

_LETTER = re.compile(
    r"(?:(?:option|choice|answer)\s*:?\s*)?"
    r"(?:\((?P<enclosed>[a-z])\)[.:,-]?\s*(?P<after>.*)"
    r"|(?P<bare>[a-z])(?:\s*[.):,-]\s*(?P<after_mark>.*)|\s+\((?P<gloss>.*)\)|\s+(?P<text>.*))?)",
    re.IGNORECASE | re.DOTALL,
)
# Sentences that name the choice. The letter is a capital and stands alone, because "a" is a word.
_SENTENCE = re.compile(
    r"(?:(?:answer|option|choice|solution)\s*(?:is|:|=)\s*(?:option\s+|choice\s+)?\(?([A-Z])\)?(?![\w'])"
    r"|(?:^|[\s(])\(?([A-Z])\)?\s+is\s+(?:the\s+)?(?:correct|right|true|best)(?![\w'])"
    r"|(?:choose|select|pick)\s+(?:option\s+)?\(?([A-Z])\)?(?![\w']))"
)


def grade_choice(pred: str | None, gold: str, choices: Sequence[str] = ()) -> Verdict:
    r"""Grade an answer to a multiple-choice question.

    ``B``, ``(B)``, ``B. mall``, ``\text{B}``, ``Option B`` and the text of exactly one choice name a letter. An answer
    with several letters names none.

    Args:
        pred: the answer, or a text whose last closed box is the answer; None for no answer.
        gold: the letter of the correct choice.
        choices: the texts of the choices, in order. Without them any letter is accepted, but no text.
    """
    gold = gold.strip().upper()
    answer = None if pred is None else answer_text(pred)
    if answer is None:
        return Verdict(False, None, Reason.NO_ANSWER, gold)
    letter = read_letter(answer, choices)
    if letter is None:
        return Verdict(False, answer[:300], Reason.UNREADABLE, gold, "it does not name exactly one choice")
    return Verdict(letter == gold, letter, Reason.EQUAL if letter == gold else Reason.DIFFERENT, gold)


def read_letter(answer: str, choices: Sequence[str] = ()) -> str | None:
    """The letter that an answer names; None if it names none or more than one."""
    text = _bare_text(answer)
    letters = LETTERS[: len(choices)] if choices else LETTERS
    texts = dict(zip(letters, choices, strict=False))
    matching = [letter for letter, choice in texts.items() if _same(text, choice)]
    if len(matching) == 1 and len(text) > 1:
        return matching[0]
    if (found := _LETTER.fullmatch(text)) and (letter := (found["enclosed"] or found["bare"]).upper()) in letters:
        rest = found["after"] or found["after_mark"] or found["gloss"] or found["text"] or ""
        own = not rest or (letter in texts and _same(rest, texts[letter]))
        # "A, B" and "A) or B)" name two; "A. a" is a choice with its text. After a bare space only the text may follow.
        others = set() if own else set(re.findall(r"(?<![\w'\\])[A-Z](?![\w'])", rest)) & set(letters)
        if own or (not found["text"] and others <= {letter}):
            return letter
        if others - {letter}:
            return None
    if len(matching) == 1:
        return matching[0]
    named = {name for groups in _SENTENCE.findall(text) for name in groups if name} & set(letters)
    return named.pop() if len(named) == 1 else None


def _bare_text(text: str) -> str:
    """An answer or the text of a choice without style commands, math delimiters and the final full stop."""
    text = text[:MAX_CHARS].replace("$", "").replace("*", "").replace("\\(", "").replace("\\)", "")
    text = re.sub(r"\\([A-Z])(?![a-zA-Z])", r"\1", spelled(text))
    while (inner := unwrapped(text)) != text:
        text = inner
    return text.strip().removesuffix(".").strip()


def _same(text: str, choice: str) -> bool:
    """Whether a text is equal to a choice: the same words, or the same number with the same unit."""
    text, choice = _bare_text(text), _bare_text(choice)
    if plain_text(text).replace(" ", "").casefold() == plain_text(choice).replace(" ", "").casefold():
        return True
    number, other = read_number(text), read_number(choice)
    if number and other:
        return number.true_value == other.true_value
    words, others = read_words(text), read_words(choice)
    if words is None or others is None or words.words != others.words:
        return False
    return [q.number.true_value for q in words.quantities] == [q.number.true_value for q in others.quantities]
