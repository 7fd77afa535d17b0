"""Families of plain arithmetic: sums, products, powers, power sums and two-step problems."""

from __future__ import annotations

import random

from start_agent.pocket.families.base import AGAIN, CORRECT, Draft, Family, number

_ASK = ("What is {}?", "Compute {}.", "Find the value of {}.")


def _sums(rng: random.Random, level: int) -> Draft:
    if level == 1:
        a, b = rng.randint(2, 30), rng.randint(2, 15)
        terms = [max(a, b), -min(a, b)] if rng.random() < 0.4 else [a, b]
    elif level == 2:
        terms = [number(rng, rng.randint(1, 3)) for _ in range(rng.choice((2, 2, 3)))]
        terms = [terms[0], *(t if rng.random() < 0.6 else -t for t in terms[1:])]
    else:
        terms = [number(rng, rng.randint(3, 5)) for _ in range(rng.randint(3, 4))]
        terms = [terms[0], *(t if rng.random() < 0.6 else -t for t in terms[1:])]
    expression = str(terms[0]) + "".join(f" + {t}" if t > 0 else f" - {-t}" for t in terms[1:])
    listed = "[" + ", ".join(str(t) for t in terms) + "]"
    running = "".join(f"total {'+' if t > 0 else '-'}= {abs(t)}\n" for t in terms[1:])
    return Draft(
        family="sums",
        level=level,
        question=rng.choice(_ASK).format(expression),
        answer=sum(terms),
        claim=f"{expression} = {{n}}",
        programs=(f"print({expression})", f"x = {expression}\nprint(x)"),
        checks=(f"print(sum({listed}))", f"total = {terms[0]}\n{running}print(total)"),
        broken=(f"numbers = {listed}\nprint(sum(number))",),
        again_rate=AGAIN[level],
    )


def _products(rng: random.Random, level: int) -> Draft:
    if level == 1:
        a, b = rng.randint(2, 15), rng.randint(2, 12)
    elif level == 2:
        a, b = number(rng, 2), number(rng, rng.choice((1, 1, 2)))
    else:
        a, b = number(rng, rng.randint(3, 5)), number(rng, rng.randint(3, 4))
    tens, ones = a - a % 10, a % 10
    expression = f"{a} * {b}"
    return Draft(
        family="products",
        level=level,
        question=rng.choice((*_ASK, f"What is the product of {a} and {b}?")).format(expression),
        answer=a * b,
        claim=f"{expression} = {{n}}",
        steps=(f"{tens} * {b} = {tens * b}", f"{ones} * {b} = {ones * b}") if level == 2 and b < 10 else (),
        programs=(f"print({expression})", f"x = {a}\ny = {b}\nprint(x * y)"),
        checks=(f"total = 0\nfor k in range({b}):\n    total += {a}\nprint(total)", f"print({b} * {a})"),
        broken=(f"print(math.prod([{a}, {b}]))",),
        again_rate=AGAIN[level],
    )


def _modpow(rng: random.Random, level: int) -> Draft:
    if level == 1:
        base, exponent, modulus = rng.randint(2, 9), rng.randint(2, 3), rng.randint(3, 9)
    elif level == 2:
        base, exponent, modulus = rng.randint(2, 6), rng.randint(4, 8), rng.randint(4, 15)
    else:
        base, exponent, modulus = rng.randint(11, 199), rng.randint(20, 400), rng.randint(20, 999)
    careless = rng.random() < 0.5
    power = f"{base}^{exponent}" if careless else f"{base} to the power {exponent}"
    question = rng.choice(
        (f"What is the remainder when {power} is divided by {modulus}?", f"What is {power} modulo {modulus}?")
    )
    residues = ", ".join(str(pow(base, k, modulus)) for k in range(1, exponent + 1)) if level == 2 else ""
    loop = f"r = 1\nfor k in range({exponent}):\n    r = r * {base} % {modulus}\nprint(r)"
    return Draft(
        family="modpow",
        level=level,
        question=question,
        answer=pow(base, exponent, modulus),
        claim=f"{base}^{exponent} leaves {{n}} modulo {modulus}",
        steps=(f"the powers leave {residues}",) if level == 2 else (),
        programs=(f"print({base} ** {exponent} % {modulus})", f"print(pow({base}, {exponent}, {modulus}))"),
        checks=(loop, f"print(pow({base}, {exponent}, {modulus}))"),
        # In Python, ^ is not the power: a mistake of people who copy the question's notation.
        slips=(f"print(({base}^{exponent}) % {modulus})", f"x = {base}^{exponent}\nprint(x % {modulus})"),
        broken=(f"print(power({base}, {exponent}, {modulus}))",),
        slip_rate=0.85 if careless and level > 1 else 0.0,
        correct_rate=CORRECT[level],
        again_rate=AGAIN[level],
    )


def _powersums(rng: random.Random, level: int) -> Draft:
    exponent = rng.choice((1, 2)) if level == 1 else rng.choice((2, 3))
    top = rng.randint(4, 15) if level == 1 else rng.randint(5, 12) if level == 2 else rng.randint(25, 300)
    start = 1 if rng.random() < 0.5 else rng.randint(2, top // 2 + 1)
    tail = "" if exponent == 1 else f"^{exponent}"
    code = "k" if exponent == 1 else f"k ** {exponent}"
    careless = rng.random() < 0.5
    if careless:
        question = rng.choice(_ASK).format(f"{start}{tail} + {start + 1}{tail} + ... + {top}{tail}")
    else:
        ask = rng.choice(("What is the sum of k{}", "Find the sum of k{}", "Add k{}")).format(tail)
        span = f"for all k from {start} to {top}, with {top} included"
        question = f"{ask} {span}{'?' if ask.startswith('What') else '.'}"
    right = f"range({start}, {top + 1})"
    sums = [sum(k**exponent for k in range(start, end + 1)) for end in range(start, top + 1)] if level < 3 else []
    return Draft(
        family="powersums",
        level=level,
        question=question,
        answer=sum(k**exponent for k in range(start, top + 1)),
        claim=f"the sum from {start}{tail} to {top}{tail} is {{n}}",
        steps=("the sums are " + ", ".join(str(n) for n in sums),) if level < 3 else (),
        programs=(
            f"print(sum({code} for k in {right}))",
            f"total = 0\nfor k in {right}:\n    total += {code}\nprint(total)",
        ),
        checks=(
            f"numbers = [{code} for k in {right}]\nprint(sum(numbers))",
            f"total = 0\nk = {start}\nwhile k <= {top}:\n    total += {code}\n    k += 1\nprint(total)",
        ),
        slips=(
            f"print(sum({code} for k in range({start}, {top})))",
            f"total = 0\nfor k in range({start}, {top}):\n    total += {code}\nprint(total)",
        ),
        broken=(f"for k in {right}:\n    total += {code}\nprint(total)",),
        slip_rate=0.85 if careless and level > 1 else 0.05 if level > 1 else 0.0,
        correct_rate=CORRECT[level],
        again_rate=AGAIN[level],
    )


def _two_step(rng: random.Random, level: int) -> Draft:
    if level == 1:
        a, b, modulus = rng.randint(2, 9), rng.randint(2, 9), rng.randint(3, 9)
    elif level == 2:
        a, b, modulus = number(rng, 2), number(rng, rng.randint(1, 2)), rng.randint(7, 60)
    else:
        a, b, modulus = number(rng, rng.randint(3, 4)), number(rng, rng.randint(2, 3)), rng.randint(60, 999)
    question = rng.choice(
        (
            f"Let p be {a} * {b}. What is the remainder when p is divided by {modulus}?",
            f"Multiply {a} by {b}. What is the remainder of the result when divided by {modulus}?",
        )
    )
    return Draft(
        family="two_step",
        level=level,
        question=question,
        answer=a * b % modulus,
        claim=f"p modulo {modulus} is {{n}}",
        steps=(f"p = {a} * {b} = {a * b}",),
        programs=(f"print({a} * {b} % {modulus})", f"p = {a} * {b}\nprint(p % {modulus})"),
        checks=(
            f"p = {a} * {b}\nprint(p - p // {modulus} * {modulus})",
            f"print({a} * {b} % {modulus})",
        ),
        stages=(f"p = {a} * {b}\nprint(p)", f"print(p % {modulus})"),
        slips=(f"print({a} * {b} // {modulus})",),
        slip_rate=0.0,
        correct_rate=CORRECT[level],
        again_rate=AGAIN[level],
    )


FAMILIES = (
    Family("sums", _sums, "sums and differences of 2 to 4 integers with 1 to 5 digits"),
    Family("products", _products, "products, from the times table to 5 by 4 digits"),
    Family("modpow", _modpow, "remainders of powers, from 3^2 modulo 7 to exponents of 400"),
    Family("powersums", _powersums, "sums of consecutive numbers, squares or cubes"),
    Family("two_step", _two_step, "a product, then its remainder"),
)
