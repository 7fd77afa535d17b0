r"""Normalizes notation: Unicode characters, programming notation and LaTeX shorthands become plain LaTeX.

``2√3``, ``2*sqrt(3)`` and ``2\sqrt3`` all become ``2\sqrt{3}``. Only repeating decimals and mixed numbers are computed,
because Math-Verify reads them in no notation. Every pattern takes time linear in the length of the text.
"""

from __future__ import annotations

import re
from fractions import Fraction

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "0123456789-+n")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_WIDE = {chr(0xFF01 + offset): chr(0x21 + offset) for offset in range(94)}  # full-width forms of ASCII
_SIGNS = _WIDE | {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/",
    "∕": "/", "⁄": "/", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "±": r"\pm ", "∓": r"\mp ", "∞": r"\infty ",
    "π": r"\pi ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ",
    "∅": r"\emptyset ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℚ": r"\mathbb{Q}", "ℕ": r"\mathbb{N}",
    "ℂ": r"\mathbb{C}", "º": r"^\circ ", "°": r"^\circ ", "˚": r"^\circ ", "…": r"\ldots ", "⋯": r"\ldots ",
    "\u00a0": " ", "\u2009": " ", "\u202f": " ", "′": "'", "（": "(", "）": ")", "，": ",",
}  # fmt: skip
_VULGAR = {
    "½": (1, 2), "⅓": (1, 3), "⅔": (2, 3), "¼": (1, 4), "¾": (3, 4), "⅕": (1, 5), "⅖": (2, 5), "⅗": (3, 5),
    "⅘": (4, 5), "⅙": (1, 6), "⅚": (5, 6), "⅛": (1, 8), "⅜": (3, 8), "⅝": (5, 8), "⅞": (7, 8),
}  # fmt: skip
_FUNCTIONS = "sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|sinh|cosh|tanh|log|ln"
_COMMAND = r"\\[a-zA-Z]+"
_ATOM = rf"(?:\d|[a-zA-Z]|{_COMMAND})"

_RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), to)
    for pattern, to in (
        (r"\\(?:dfrac|tfrac|cfrac)(?![a-zA-Z])", r"\\frac"),
        (r"\\degrees?(?![a-zA-Z])", r"^\\circ "),
        (r"\\(?:left|right|big|Big|bigg|Bigg)(?![a-zA-Z])\s*", ""),
        (r"\\(?:displaystyle|textstyle|limits)(?![a-zA-Z])", ""),
        (r"\\(?:leq|leqslant)(?![a-zA-Z])", r"\\le "),
        (r"\\(?:geq|geqslant)(?![a-zA-Z])", r"\\ge "),
        (r"\\(?:dots|cdots|dotsc|dotsb)(?![a-zA-Z])", r"\\ldots "),
        (r"(?<!\.)\.\.\.(?!\.)", r"\\ldots "),
        (r"\\(mathbb|mathbf|mathrm|mathcal)\s+([A-Za-z])(?![A-Za-z])", r"\\\1{\2}"),
        (r"~|(?<!\\)\\[,;: ]|\\q?quad(?![a-zA-Z])", " "),
        (r"(?<!\\)\\!", ""),
        (r"√\s*\(", "sqrt("),
        (rf"√\s*({_ATOM}+|\d+)", r"\\sqrt{\1}"),
        (r"\*\*", "^"),
        (r"(?<![\\a-zA-Z])pi(?![a-zA-Z])", r"\\pi "),
        (r"(?<![\\a-zA-Z])(?:infinity|inf|oo)(?![a-zA-Z])", r"\\infty "),
        (rf"(?<![\\a-zA-Z])({_FUNCTIONS})(?=\s*\()", r"\\\1"),
        (r"(?<=[\w)}])\s*\*\s*(?=[\w(\\])", r" \\cdot "),
        (rf"\\sqrt\s*({_COMMAND}|\d|[a-zA-Z])", r"\\sqrt{\1}"),
        (rf"\\frac\s*({_COMMAND}|\d|[a-zA-Z])\s*({_COMMAND}|\d|[a-zA-Z])", r"\\frac{\1}{\2}"),
        (rf"\\frac\s*({_COMMAND}|\d|[a-zA-Z])\s*\{{", r"\\frac{\1}{"),
        (rf"\\frac\s*(\{{[^{{}}]*\}})\s*({_COMMAND}|\d|[a-zA-Z])", r"\\frac\1{\2}"),
        (r"^\(\s*(\d+)\s*\)_\{?(\d+)\}?$", r"\1_{\2}"),
        (r"^=\s*", ""),
        (r"^\s*(?:\\text\s*\{\s*)?[A-Za-z][A-Za-z ]{2,30}:\s*\}?\s*(?=[-+\d\\.(])", ""),
    )
)
# Thousands separators: LaTeX forms with braces or a thin space always, a plain comma between groups of three digits.
_LATEX_THOUSANDS = re.compile(r"(?<=\d)(?:\{,\}|,\\!|\\,)\s*(?=\d{3}(?!\d))")
_THOUSANDS = re.compile(r"(?<![\d.,_^])[1-9]\d{0,2}(?:,\d{3})+(?!\d|,\d)")
_REPEATING = re.compile(r"(\d*)\.(\d*)\\(?:overline|bar|dot)\s*(?:\{(\d+)\}|(\d))")
_MIXED = re.compile(r"^(-?)\s*(\d+)\s*(?:\s(\d+)\s*/\s*(\d+)|\\frac\{(\d+)\}\{(\d+)\})(?=\s|$|\\text|[a-zA-Z])")
_CALL = re.compile(r"(?<![\\a-zA-Z])(sqrt|exp)\s*\(")


def spelled(text: str) -> str:
    """The text in normalized notation, for parsing and not for display."""
    text = _LATEX_THOUSANDS.sub("", text)
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ]+", lambda found: f"^{{{found[0].translate(_SUPERSCRIPTS)}}}", text)
    text = re.sub("[₀-₉]+", lambda found: f"_{{{found[0].translate(_SUBSCRIPTS)}}}", text)
    text = "".join(_SIGNS.get(character, character) for character in text)
    text = re.sub("(?<=[0-9])?[" + "".join(_VULGAR) + "]", _vulgar, text)
    text = _calls(text)
    for pattern, to in _RULES:
        text = pattern.sub(to, text)
    text = _THOUSANDS.sub(lambda found: found[0].replace(",", ""), text)
    text = _REPEATING.sub(_repeating, text).strip()
    return _MIXED.sub(_mixed, text).strip()


def without_brackets(text: str) -> str:
    """A list in Python's notation, ``[1, 2]``, without its brackets; anything else unchanged."""
    inner = text[1:-1]
    if text.startswith("[") and text.endswith("]") and not set("[]") & set(inner):
        return inner
    return text


def both_signs(text: str) -> list[str]:
    r"""The two values of an expression with ``\pm``; only the text itself without one."""
    if r"\pm" not in text:
        return [text]
    upper = re.sub(r"\\mp(?![a-zA-Z])", "-", re.sub(r"\\pm(?![a-zA-Z])", "+", text))
    lower = re.sub(r"\\mp(?![a-zA-Z])", "+", re.sub(r"\\pm(?![a-zA-Z])", "-", text))
    return [re.sub(r"^\s*\+\s*", "", upper), lower]


def _vulgar(found: re.Match[str]) -> str:
    above, below = _VULGAR[found[0][-1]]
    return rf" \frac{{{above}}}{{{below}}}"


def _calls(text: str) -> str:
    r"""Convert ``sqrt(…)`` and ``exp(…)`` of programs to ``\sqrt{…}`` and ``e^{…}``, also when nested."""
    while call := _CALL.search(text):
        depth = 1
        for at in range(call.end(), len(text)):
            depth += {"(": 1, ")": -1}.get(text[at], 0)
            if depth == 0:
                break
        else:
            return text
        head = r"\sqrt{" if call[1] == "sqrt" else "e^{"
        text = text[: call.start()] + head + text[call.end() : at] + "}" + text[at + 1 :]
    return text


def _repeating(found: re.Match[str]) -> str:
    """A repeating decimal as a fraction: 0.1(6) is (16 - 1) / 90."""
    whole, fixed, repeated = found[1] or "0", found[2], found[3] or found[4]
    if len(whole) + len(fixed) + len(repeated) > 100:
        return found[0]
    below = (10 ** len(repeated) - 1) * 10 ** len(fixed)
    value = Fraction(int(whole + fixed + repeated) - int(whole + fixed), below)
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def _mixed(found: re.Match[str]) -> str:
    """A mixed number as a fraction; an improper one (``2 5/3``) is unchanged."""
    sign, whole, above, below = found[1], int(found[2]), int(found[3] or found[5]), int(found[4] or found[6])
    if not 0 < above < below or len(found[2]) > 50:
        return found[0]
    return rf"{sign}\frac{{{whole * below + above}}}{{{below}}}"
