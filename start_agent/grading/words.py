r"""Compares answers that contain words: quantities, clock times, names and sequences of letters.

Math-Verify drops words, or reads them as products of letters. Here ``8 cookies`` is 8, ``8 hours 30 minutes`` is not,
``2 million`` is 2,000,000, ``9:45 AM`` is not ``9:45 PM``, and ``BCA`` is not ``CAB``. ``compare_words`` decides only
where the words decide, and leaves everything else to Math-Verify.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from start_agent.grading.numbers import Number, equal_numbers, read_number

_DIMENSIONS: dict[str, dict[str, int]] = {
    "time": {"second": 1, "sec": 1, "s": 1, "minute": 60, "min": 60, "hour": 3600, "hr": 3600, "h": 3600}
    | {"day": 86400, "week": 604800},
    "length": {"mm": 1, "millimeter": 1, "cm": 10, "centimeter": 10, "m": 1000, "meter": 1000, "metre": 1000}
    | {"km": 1_000_000, "kilometer": 1_000_000, "kilometre": 1_000_000},
    "imperial length": {"inch": 1, "inches": 1, "in": 1, "foot": 12, "feet": 12, "ft": 12, "yard": 36, "yd": 36}
    | {"mile": 63360, "mi": 63360},
    "mass": {"mg": 1, "g": 1000, "gram": 1000, "kg": 1_000_000, "kilogram": 1_000_000, "ton": 1_000_000_000},
    "imperial mass": {"ounce": 1, "oz": 1, "pound": 16, "lb": 16},
    "volume": {"ml": 1, "mL": 1, "milliliter": 1, "liter": 1000, "litre": 1000, "l": 1000, "L": 1000},
    "money": {"cent": 1, "¢": 1, "dollar": 100},
}
_UNITS = {name: (dimension, size) for dimension, units in _DIMENSIONS.items() for name, size in units.items()}

_MULTIPLIERS = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}

_OPPOSITES = (
    (frozenset({"am", "a.m", "a.m."}), frozenset({"pm", "p.m", "p.m."})),
    (frozenset({"profit", "gain", "gained"}), frozenset({"loss", "lost"})),
    (frozenset({"increase", "increased", "more", "higher"}), frozenset({"decrease", "decreased", "less", "lower"})),
    (frozenset({"north"}), frozenset({"south"})),
    (frozenset({"east"}), frozenset({"west"})),
    (frozenset({"left"}), frozenset({"right"})),
    (frozenset({"up", "above", "upward", "upwards"}), frozenset({"down", "below", "downward", "downwards"})),
    (frozenset({"clockwise"}), frozenset({"counterclockwise", "anticlockwise"})),
    (frozenset({"before", "early", "earlier"}), frozenset({"after", "late", "later"})),
    (frozenset({"minimum", "least", "least."}), frozenset({"maximum", "most"})),
    (frozenset({"positive"}), frozenset({"negative"})),
)
_DIRECTIONS = frozenset({"north", "south", "east", "west", "northeast", "northwest", "southeast", "southwest"})

# Words that change the number before them, or are not words at all: with these, Math-Verify must decide.
_OPERATORS = frozenset(
    re.findall(
        "[a-z]+",
        """pi e i x y z n k t sqrt sin cos tan cot sec csc log ln exp mod modulo squared cubed factorial times plus
        minus over divided power root half halves third thirds quarter quarters fourth fourths fifth fifths sixth
        sixths eighth eighths tenth tenths hundredth hundredths infinity infinite choose or to through between""",
    )
)
_SINGLE_UNITS = frozenset("mghslLNJWKCVA")

_TEXT = re.compile(r"\\(?:text|mbox|textbf|textit|textrm|textsf|mathrm|mathbf|mathit|operatorname|rm)\s*\{([^{}]*)\}")
_CURRENCY = re.compile(r"\\?\$|[€£]|\\pounds(?![a-z])|\\euro(?![a-z])")
_CHUNK = re.compile(
    r"\s*(?:(?P<number>[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:\s*/\s*\d+)?|[-+]?\\frac\{-?\d+\}\{-?\d+\})(?P<percent>\s*\\?%)?"
    r"|(?P<word>(?:a\.m\.?|p\.m\.?|[A-Za-z¢][A-Za-z'’-]*))(?P<power>\^\{?-?\d+\}?)?"
    r"|(?P<link>[,/]|\\cdot(?![a-z])))",
    re.IGNORECASE,
)
_CLOCK = re.compile(r"^\s*(\d{1,2})\s*:\s*([0-5]\d)\s*(?:o'clock)?\s*([ap])?\.?\s*(m)?\.?\s*$", re.IGNORECASE)
_LETTERS = re.compile(r"[A-Za-z]+")
_NAME = re.compile(r"[A-Z]{2,}|[A-Z][a-z]+|[a-z]{4,}")


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with its ``unit``, if the word after it is a known one; ``noun`` is whether any word follows it."""

    number: Number
    unit: str = ""
    noun: bool = False


@dataclass(frozen=True, slots=True)
class Words:
    """An answer that consists of quantities; ``words`` are all its words, in lower case."""

    quantities: tuple[Quantity, ...]
    words: frozenset[str]


def unwrapped(text: str) -> str:
    r"""The text with ``\text{…}`` and similar commands replaced by their content, and without currency signs."""
    return _CURRENCY.sub("", _TEXT.sub(r" \1 ", text)).strip()


def compare_words(gold: str, pred: str) -> bool | None:
    """Whether a prediction equals the gold answer, if words decide it; None if Math-Verify must.

    Both texts must be normalized (see ``spelling.spelled``).
    """
    gold, pred = unwrapped(gold), unwrapped(pred)
    clocks = _clock(gold), _clock(pred)
    if clocks[0] and clocks[1]:
        return clocks[0][:2] == clocks[1][:2] and (not (clocks[0][2] and clocks[1][2]) or clocks[0][2] == clocks[1][2])
    if named(gold) or named(pred):
        return _plain(gold) == _plain(pred)
    one, other = read_words(gold), read_words(pred)
    if one is None or other is None or not (one.words or other.words):
        return None
    if _opposed(one.words, other.words):
        return False
    return _equal(one.quantities, other.quantities)


def read_words(text: str) -> Words | None:
    """The quantities that a text consists of; None if it is anything else."""
    quantities: list[Quantity] = []
    words: list[str] = []
    behind: list[str] = []
    number: Number | None = None
    at, linked = 0, False

    def close() -> bool:
        nonlocal number, behind
        if number is None:
            return not behind
        found = _quantity(number, behind)
        number, behind = None, []
        if found is not None:
            quantities.append(found)
        return found is not None

    text = re.sub(r"\^\{?\\circ\s*\}?", " degrees ", text)
    while at < len(text.rstrip()):
        chunk = _CHUNK.match(text, at)
        if chunk is None or chunk.end() == at:
            return None
        if chunk["number"]:
            if linked and number is not None and behind:
                return None  # "8 miles / 2": a division
            if number is not None and not behind:
                return None  # two numbers side by side: a list, or a product
            if not close():
                return None
            number = read_number(chunk["number"].replace(" ", "") + ("%" if chunk["percent"] else ""))
            if number is None:
                return None
        elif chunk["word"]:
            word = chunk["word"]
            if number is None:
                return None  # words before a number: a sentence, or a name for the number
            if len(word) == 1 and not (word == "a" or (word in _SINGLE_UNITS and _apart(text, chunk.start("word")))):
                return None  # a variable
            words.append(word.casefold())
            behind.append(word + (chunk["power"] or ""))
        elif chunk["link"] == "," and not behind:
            return None  # a list of numbers
        linked = bool(chunk["link"]) and chunk["link"] != ","
        at = chunk.end()
    if not close() or not quantities:
        return None
    return Words(tuple(quantities), frozenset(words))


def named(text: str) -> bool:
    """Whether a text consists of names or a sequence of labels: no number, no math symbol, no product of variables."""
    if len(text) > 200 or re.search(r"[\d\\^_=+*/<>|{}()\[\]-]", text):
        return False
    words = _LETTERS.findall(text)
    if len(words) > 1 and all(len(word) == 1 for word in words):
        return all(word.isupper() for word in words)  # A, B, C are labels; x, y are variables
    return any(_NAME.fullmatch(word) and word.casefold() not in _OPERATORS for word in words)


def _plain(text: str) -> str:
    """The words of a text without punctuation; articles and "and" are dropped, unless all words are single letters."""
    if any(len(word) > 1 for word in _LETTERS.findall(text)):
        text = re.sub(r"\b(?:the|a|an|and)\b", " ", text.casefold())
    return re.sub(r"[\s.,;]+", " ", text).strip().casefold()


def _apart(text: str, at: int) -> bool:
    """Whether a number and the letter after it are separated: "5 m" is a length, "5m" a product."""
    return text[at - 1] in " /" or at == 0


def _quantity(number: Number, words: list[str]) -> Quantity | None:
    """The number with its words; None if one of them is an operator, or changes the number in an unknown way."""
    value, rest = number.true_value if number.percent else number.value, list(words)
    lower = [word.casefold() for word in rest]
    if lower[:3] == ["and", "a", "half"] or lower[-3:] == ["and", "a", "half"]:
        cut = slice(3, None) if lower[:3] == ["and", "a", "half"] else slice(0, -3)
        value, rest = value + Fraction(1, 2), rest[cut]
    while rest and rest[0].casefold() in _MULTIPLIERS:
        value, rest = value * _MULTIPLIERS[rest.pop(0).casefold()], rest
    lower = [word.casefold() for word in rest if word.casefold() != "and"]
    if any(word in _OPERATORS or word in _MULTIPLIERS for word in lower):
        return None
    if value != (number.true_value if number.percent else number.value):
        number = Number(value)
    unit = _unit(rest[0]) if len(rest) and all(word.casefold() == "and" for word in rest[1:]) else ""
    return Quantity(number, unit, bool(rest))


def _unit(word: str) -> str:
    for name in (word, word.casefold(), word.casefold().removesuffix("s"), word.casefold().removesuffix("es")):
        if name in _UNITS:
            return name
    return ""


def _equal(gold: tuple[Quantity, ...], pred: tuple[Quantity, ...]) -> bool:
    if len(gold) == len(pred) == 1:
        units = _UNITS.get(gold[0].unit), _UNITS.get(pred[0].unit)
        if units[0] and units[1] and units[0][0] == units[1][0] and units[0] != units[1]:
            return gold[0].number.value * units[0][1] == pred[0].number.value * units[1][1]
        return equal_numbers(gold[0].number, pred[0].number)
    totals = _total(gold), _total(pred)
    if totals[0] and totals[1]:
        return totals[0] == totals[1]
    if len(gold) != len(pred):
        return False
    return all(
        equal_numbers(one.number, two.number) and (not (one.unit and two.unit) or _UNITS[one.unit] == _UNITS[two.unit])
        for one, two in zip(gold, pred, strict=True)
    )


def _total(quantities: tuple[Quantity, ...]) -> tuple[str, Fraction] | None:
    """The dimension and the sum of quantities like 8 hours 30 minutes; None if they do not share one dimension."""
    units = [_UNITS.get(quantity.unit) for quantity in quantities]
    known = [unit for unit in units if unit]
    if len(known) != len(units) or len({dimension for dimension, _ in known}) != 1:
        return None
    total = sum((q.number.value * unit[1] for q, unit in zip(quantities, known, strict=True)), Fraction(0))
    return known[0][0], total


def _opposed(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether two answers contain opposites, or name different directions."""
    if (one & _DIRECTIONS) and (other & _DIRECTIONS) and one & _DIRECTIONS != other & _DIRECTIONS:
        return True
    return any((one & first and other & second) or (one & second and other & first) for first, second in _OPPOSITES)


def _clock(text: str) -> tuple[int, int, str] | None:
    """The hour, the minute and "a", "p" or "" (no AM or PM) of a time of day; None if the text is not one."""
    found = _CLOCK.match(text)
    if found is None or bool(found[3]) != bool(found[4]) or int(found[1]) > 24:
        return None
    return int(found[1]), int(found[2]), (found[3] or "").lower()
