"""Joins a hint to the text before it."""

from __future__ import annotations

from hints.hint import Hint, Placement

_SENTENCE_ENDS = frozenset(".!?…。！？")
_PAUSES = frozenset(",;:-–—，；：、")


def join(tail: str, hint: Hint) -> str:
    """The text to insert after ``tail``: a separator, if one is still missing, and the hint's text.

    ``tail`` is the end of the trace's text, from at least the last character that is not white space. The token that
    completed a connective may contain more than the word (a comma, a space, a full stop and an empty line), and
    cannot be changed any more, so the separator and the case of the hint's first letter depend on it:

    ==============  ==========================  ================================================
    placement       tail ends with              inserted
    ==============  ==========================  ================================================
    connective      a word: ``Wait``            ``, maybe using Python …``
    connective      a pause: ``Wait,``          `` maybe using Python …``
    connective      ``Wait, `` or ``Wait ``     ``maybe using Python …``
    connective      a sentence end: ``Wait.``   `` Maybe using Python …``
    connective      ``Wait.\\n\\n``, ``Wait\\n``    ``Maybe using Python …``
    end of think    anything else               ``\\n\\n`` and the text
    end of think    one line break              ``\\n`` and the text
    end of think    an empty line, or nothing   the text
    ==============  ==========================  ================================================

    A pure function, defined for all arguments.
    """
    if hint.placement is Placement.CONNECTIVE:
        return _continue_sentence(tail, hint.text)
    return _paragraph_break(tail) + hint.text


def _continue_sentence(tail: str, text: str) -> str:
    body = tail.rstrip()
    space = tail[len(body) :]
    last = body[-1:]
    new_sentence = not last or last in _SENTENCE_ENDS or ("\n" in space and last not in _PAUSES)
    if new_sentence:
        text = text[:1].upper() + text[1:]
    if space or not last:
        return text
    return (" " if last in _SENTENCE_ENDS or last in _PAUSES else ", ") + text


def _paragraph_break(tail: str) -> str:
    if not tail:
        return ""
    space = tail[len(tail.rstrip()) :]
    missing = 2 - space.count("\n")
    # Blanks after the last line break would indent the hint's first line, so they need another line break.
    return "\n" * max(missing, 0 if tail.endswith("\n") else 1)
