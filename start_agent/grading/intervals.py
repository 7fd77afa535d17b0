r"""Converts inequalities in one variable to intervals, so that both notations can be compared.

``-2 \le x < 7`` becomes ``[-2,7)``, ``x \ge 5`` becomes ``[5,\infty)``; several joined by "or" become their union.
"""

from __future__ import annotations

import re

_RELATION = r"(\\le|\\ge|\\lt|\\gt|<=|>=|<|>)"
_VARIABLE = r"([a-zA-Z]|\\[a-z]+)"
_SIDE = r"([^<>,]+?)"
_BETWEEN = re.compile(rf"^{_SIDE}\s*{_RELATION}\s*{_VARIABLE}\s*{_RELATION}\s*{_SIDE}$")
_BELOW = re.compile(rf"^{_VARIABLE}\s*{_RELATION}\s*{_SIDE}$")
_ABOVE = re.compile(rf"^{_SIDE}\s*{_RELATION}\s*{_VARIABLE}$")
_OR = re.compile(
    r"\s*(?:\\(?:text|mbox|textrm|mathrm)\s*\{\s*or\s*\}|(?<![a-zA-Z\\])or(?![a-zA-Z])|\\lor(?![a-zA-Z])|,)\s*"
)
_MEMBER = re.compile(r"^\s*[a-zA-Z]\s*\\in\s*")
_CLOSED = frozenset(("\\le", "\\ge", "<=", ">="))
_LESS = frozenset(("\\le", "\\lt", "<=", "<"))


def as_interval(text: str) -> str | None:
    """The interval, or the union of intervals, that a text describes; None if it is not an inequality."""
    parts = [_one(part) for part in _OR.split(text.strip())]
    if not parts or any(part is None for part in parts):
        return None
    return r"\cup".join(part for part in parts if part)


def without_member(text: str) -> str:
    r"""``x\in[1,2]`` without its ``x\in``."""
    return _MEMBER.sub("", text)


def _one(text: str) -> str | None:
    if found := _BETWEEN.match(text):
        low, first, _, second, high = found.groups()
        if (first in _LESS) != (second in _LESS):
            return None
        if first not in _LESS:
            low, first, second, high = high, second, first, low
        return f"{'[' if first in _CLOSED else '('}{low},{high}{']' if second in _CLOSED else ')'}"
    if found := _BELOW.match(text):
        _, relation, bound = found.groups()
        return _half(bound, relation, upper=relation in _LESS)
    if found := _ABOVE.match(text):
        bound, relation, _ = found.groups()
        return _half(bound, relation, upper=relation not in _LESS)
    return None


def _half(bound: str, relation: str, *, upper: bool) -> str | None:
    if re.search(r"[=,]", bound):
        return None
    closed = relation in _CLOSED
    if upper:
        return rf"(-\infty,{bound}{']' if closed else ')'}"
    return rf"{'[' if closed else '('}{bound},\infty)"
