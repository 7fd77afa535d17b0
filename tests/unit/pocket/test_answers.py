"""Answers computed by brute force from the question's text, independently of the generators."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, timedelta
from itertools import count

import pytest

from start_agent.pocket import generate
from start_agent.pocket.families import FAMILIES, LEVELS

_MONTHS = [date(2020, month, 1).strftime("%B") for month in range(1, 13)]


def _ints(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text)]


def _expression(question: str) -> int:
    text = re.sub(r"^(What is|Compute|Find the value of) |[?.]$", "", question)
    value = 0
    for sign, term in re.findall(r"(^|[+-] )(\d+)", text):
        value += -int(term) if sign.startswith("-") else int(term)
    return value


def _product(question: str) -> int:
    a, b = _ints(question)
    return sum(a for _ in range(b))


def _modpow(question: str) -> int:
    base, exponent, modulus = _ints(question)
    value = 1
    for _ in range(exponent):
        value *= base
    return value - value // modulus * modulus


def _powersum(question: str) -> int:
    if "..." in question:
        powers = re.findall(r"(\d+)(?:\^(\d))?", question)
        exponent = int(powers[0][1] or 1)
        low, high = int(powers[0][0]), int(powers[-1][0])
    else:
        found = re.search(r"k(?:\^(\d))? for all k from (\d+) to (\d+), with \3 included", question)
        assert found
        exponent, low, high = int(found[1] or 1), int(found[2]), int(found[3])
    total = 0
    while low <= high:
        total += low**exponent
        low += 1
    return total


def _two_step(question: str) -> int:
    a, b, modulus = _ints(question)
    left = a * b
    while left >= modulus:
        left -= modulus
    return left


def _divisors(question: str) -> int:
    n = max(_ints(question))
    return len({d for k in range(1, n + 1) if n // k * k == n for d in (k, n // k)})


def _primes(question: str) -> int:
    low, high = _ints(question)[:2]
    sieve = set(range(2, high + 1))
    for n in range(2, high + 1):
        sieve -= set(range(2 * n, high + 1, n))
    return len([n for n in sieve if n >= low])


def _counting(question: str) -> int:
    found = re.search(r"from (\d+) to (\d+)", question)
    factors = re.search(r"multiples of (\d+)(?: or (\d+))?", question)
    assert found and factors
    low, high = int(found[1]), int(found[2])
    hits: set[int] = set()
    for factor in factors.groups():
        if factor:
            hits |= set(range(0, high + 1, int(factor)))
    return len([n for n in hits if n >= low])


def _sequence(question: str) -> int:
    first = _ints(question.split(".")[0])[0]
    rule, ask = question.split(".")[1:]
    index = _ints(ask)[0]
    numbers = _ints(rule)
    term = first
    for position in count(1):
        if position == index:
            return term
        term = term + numbers[0] if "more than" in rule else term * numbers[0] + numbers[1]
    raise AssertionError


def _equation(question: str) -> int:
    found = re.search(r"(\d*)x ([+-]) (\d+) = (?:(\d+)x ([+-]) (\d+)|(-?\d+))", question)
    assert found, question
    a, b = int(found[1] or 1), int(found[2] + found[3])
    c, d = (int(found[4]), int(found[5] + found[6])) if found[4] else (0, int(found[7]))
    (solution,) = (x for x in range(-2000, 2001) if a * x + b == c * x + d)
    return solution


def _shopping(question: str) -> int:
    cost = sum(int(a) * int(p) for a, p in re.findall(r"(\d+) \w+ for (\d+) coins each", question))
    purse = re.search(r"has (\d+) coins and", question)
    return int(purse[1]) - cost if purse else cost


def _dates(question: str) -> int:
    found = re.findall(r"(\d+) ([A-Z][a-z]+) (\d{4})", question)
    start, end = (date(int(y), _MONTHS.index(m) + 1, int(d)) for d, m, y in found)
    steps = 0
    while start + timedelta(days=steps) != end:
        steps += 1
    return steps + ("both days count" in question or "counting the first day" in question)


def _units(question: str) -> int:
    seconds = {"day": 86400, "hour": 3600, "minute": 60, "second": 1}
    total = sum(int(n) * seconds[unit] for n, unit in re.findall(r"(\d+) (day|hour|minute|second)s", question))
    return total // 60 if "How many minutes" in question else total


SOLVERS: dict[str, Callable[[str], int]] = {
    "sums": _expression,
    "products": _product,
    "modpow": _modpow,
    "powersums": _powersum,
    "two_step": _two_step,
    "divisors": _divisors,
    "primes": _primes,
    "counting": _counting,
    "sequences": _sequence,
    "equations": _equation,
    "shopping": _shopping,
    "dates": _dates,
    "units": _units,
}


@pytest.mark.parametrize("family", list(FAMILIES))
def test_answers_agree_with_brute_force_from_the_question_alone(family: str) -> None:
    problems = generate(seed=5, count=90, families=[family])
    assert {p.meta["level"] for p in problems} == set(LEVELS)
    for problem in problems:
        assert problem.answer == str(SOLVERS[family](problem.question)), problem.question


def test_every_family_has_a_solver_here() -> None:
    assert set(SOLVERS) == set(FAMILIES)
    assert len(FAMILIES) >= 9
