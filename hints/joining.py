"""How a hint is joined to the text before it."""

from __future__ import annotations

from hints.hint import Hint, Placement

_SENTENCE_ENDS = frozenset(".!?…。！？")
_PAUSES = frozenset(",;:-–—，；：、")


def join(tail: str, hint: Hint) -> str:
    """The text to insert after ``tail``: a separator, as far as one is still owed, and the hint's text.

    ``tail`` is the end of the trace's text; everything up to the last character that is not white space is
    enough, more does not hurt. The token that completed a connective may carry more than the word (a comma,
    a space, a full stop and an empty line), and nothing can be taken back from it, so the separator and the
    case of the hint's first letter follow what is there:

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

    Pure and total: any two arguments have an answer.
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
    owed = 2 - space.count("\n")
    # Blanks after the last line break would indent the hint's first line: they need a break of their own.
    return "\n" * max(owed, 0 if tail.endswith("\n") else 1)
