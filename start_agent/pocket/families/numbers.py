"""Families about integers: divisors, primes, counting, sequences and linear equations."""

from __future__ import annotations

import random

from start_agent.pocket.families.base import AGAIN, CORRECT, Draft, Family


def _divisors(rng: random.Random, level: int) -> Draft:
    n = rng.randint(2, 48) if level == 1 else rng.randint(49, 200) if level == 2 else rng.randint(301, 4000)
    careless = rng.random() < 0.5
    question = rng.choice(
        (f"How many positive divisors does {n} have?", f"Find the number of divisors of {n}.")
        if careless
        else (f"How many numbers from 1 to {n} divide {n}?", f"How many divisors has {n}, with {n} included?")
    )
    divisors = [d for d in range(1, n + 1) if n % d == 0]
    return Draft(
        family="divisors",
        level=level,
        question=question,
        answer=len(divisors),
        claim=f"{n} has {{n}} divisors",
        steps=("the divisors are " + ", ".join(str(d) for d in divisors),) if level < 3 else (),
        programs=(
            f"print(len([d for d in range(1, {n} + 1) if {n} % d == 0]))",
            f"count = 0\nfor d in range(1, {n} + 1):\n    if {n} % d == 0:\n        count += 1\nprint(count)",
        ),
        checks=(
            f"n = {n}\nprint(sum(1 for d in range(1, n + 1) if n % d == 0))",
            f"n = {n}\ncount = 0\nfor d in range(1, n + 1):\n    if n % d == 0:\n        count += 1\nprint(count)",
        ),
        slips=(
            f"print(len([d for d in range(1, {n}) if {n} % d == 0]))",
            f"count = 0\nfor d in range(1, {n}):\n    if {n} % d == 0:\n        count += 1\nprint(count)",
        ),
        broken=(f"print(len(divisors({n})))",),
        slip_rate=0.85 if careless and level > 1 else 0.0,
        correct_rate=CORRECT[level],
        again_rate=AGAIN[level],
    )


def _is_prime(n: int) -> bool:
    return n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))


def _primes(rng: random.Random, level: int) -> Draft:
    if level == 1:
        low, high = rng.randint(1, 8), rng.randint(10, 30)
    elif level == 2:
        low = rng.randint(1, 60)
        high = low + rng.randint(20, 39)
    else:
        low, high = rng.randint(50, 300), rng.randint(310, 700)
    careless = rng.random() < 0.5
    if careless and level > 1:  # make the upper end a prime, which a careless range misses
        while not _is_prime(high):
            high -= 1
    question = (
        f"How many primes are there from {low} to {high}?"
        if careless
        else f"How many primes are there from {low} to {high}, with {high} included?"
    )
    primes = [n for n in range(low, high + 1) if _is_prime(n)]
    right = f"range({low}, {high + 1})"

    def loop(span: str) -> str:
        return (
            f"count = 0\nfor n in {span}:\n    if n > 1 and all(n % d for d in range(2, n)):\n"
            "        count += 1\nprint(count)"
        )

    def listed(span: str) -> str:
        return f"primes = [n for n in {span} if n > 1 and all(n % d for d in range(2, n))]\nprint(len(primes))"

    wrong = f"range({low}, {high})"
    return Draft(
        family="primes",
        level=level,
        question=question,
        answer=len(primes),
        claim=f"there are {{n}} primes from {low} to {high}",
        steps=("the primes are " + ", ".join(str(n) for n in primes),) if level < 3 else (),
        programs=(listed(right), loop(right)),
        checks=(loop(right), listed(right)),
        slips=(listed(wrong), loop(wrong)),
        broken=(f"print(len([n for n in {right} if is_prime(n)]))",),
        slip_rate=0.85 if careless and level > 1 else 0.0,
        correct_rate=CORRECT[level],
        again_rate=AGAIN[level],
    )


def _counting(rng: random.Random, level: int) -> Draft:
    if level == 1:
        p, q, low, high = rng.randint(2, 6), 0, 1, rng.randint(10, 40)
    elif level == 2:
        p, q, low, high = rng.randint(3, 12), 0, rng.randint(5, 40), rng.randint(60, 120)
    else:
        p, q, low, high = rng.randint(3, 9), rng.randint(10, 17), rng.randint(50, 400), rng.randint(500, 3000)
    careless = rng.random() < 0.5
    if careless and level > 1:  # make the upper end a multiple, which a careless range misses
        high -= high % p
    kind = f"multiples of {p}" if not q else f"multiples of {p} or {q}"
    question = (
        rng.choice((f"How many {kind} are there from {low} to {high}?", f"Count the {kind} from {low} to {high}."))
        if careless
        else f"How many integers from {low} to {high}, with {high} included, are {kind}?"
    )
    test = f"n % {p} == 0" if not q else f"n % {p} == 0 or n % {q} == 0"

    def loop(end: int) -> str:
        return f"count = 0\nfor n in range({low}, {end}):\n    if {test}:\n        count += 1\nprint(count)"

    def listed(end: int) -> str:
        return f"print(len([n for n in range({low}, {end}) if {test}]))"

    return Draft(
        family="counting",
        level=level,
        question=question,
        answer=sum(n % p == 0 or (q > 0 and n % q == 0) for n in range(low, high + 1)),
        claim=f"there are {{n}} {kind} from {low} to {high}",
        steps=(f"up to {high} there are {high // p}", f"below {low} there are {(low - 1) // p}") if level == 2 else (),
        programs=(listed(high + 1), loop(high + 1)),
        checks=(
            f"print(sum(1 for n in range({low}, {high + 1}) if {test}))",
            f"count = 0\nn = {low}\nwhile n <= {high}:\n    if {test}:\n        count += 1\n    n += 1\nprint(count)",
        ),
        slips=(listed(high), loop(high)),
        broken=(f"for n in range({low}, {high + 1}):\n    if {test}:\n        count += 1\nprint(count)",),
        slip_rate=0.85 if careless and level > 1 else 0.0,
        correct_rate=CORRECT[level],
        again_rate=AGAIN[level],
    )


def _sequences(rng: random.Random, level: int) -> Draft:
    careless = rng.random() < 0.5
    if level == 1:
        first, factor, plus, index = rng.randint(1, 9), 1, rng.randint(2, 6), rng.randint(3, 6)
    elif level == 2:
        first, factor, plus, index = rng.randint(1, 9), rng.randint(2, 3), rng.randint(1, 9), rng.randint(4, 7)
    else:
        first, factor = rng.randint(2, 99), rng.randint(2, 9)
        plus, index = rng.randint(2, 99), rng.randint(6, 14)
    rule = f"{plus} more than the one before" if factor == 1 else f"{factor} times the one before plus {plus}"
    question = (
        f"A sequence starts with {first}. Each term is {rule}. What is term {index}?"
        if careless
        else f"The first term of a sequence is {first}. Each next term is {rule}. What is term number {index}?"
    )
    update = f"x + {plus}" if factor == 1 else f"{factor} * x + {plus}"
    terms = [first]
    for _ in range(index - 1):
        terms.append(factor * terms[-1] + plus)

    def loop(span: str) -> str:
        return f"x = {first}\nfor k in range({span}):\n    x = {update}\nprint(x)"

    listed = (
        f"terms = [{first}]\nwhile len(terms) < {index}:\n    x = terms[-1]\n    terms.append({update})\n"
        "print(terms[-1])"
    )
    return Draft(
        family="sequences",
        level=level,
        question=question,
        answer=terms[-1],
        claim=f"term {index} is {{n}}",
        steps=("the terms are " + ", ".join(str(t) for t in terms),) if level < 3 else (),
        programs=(loop(f"{index} - 1"), loop(f"2, {index + 1}")),
        checks=(listed, loop(f"{index} - 1")),
        slips=(loop(f"{index}"), loop(f"1, {index + 1}")),
        broken=(f"for k in range({index} - 1):\n    x = {update}\nprint(x)",),
        slip_rate=0.85 if careless and level > 1 else 0.0,
        correct_rate=CORRECT[level],
        again_rate=AGAIN[level],
    )


def _signed(value: int) -> str:
    return f"+ {value}" if value >= 0 else f"- {-value}"


def _equations(rng: random.Random, level: int) -> Draft:
    if level == 1:
        x, a, b, c = rng.randint(1, 9), rng.randint(1, 5), rng.randint(1, 9), 0
    elif level == 2:
        x, a, b, c = rng.randint(2, 30), rng.randint(3, 15), rng.randint(-60, 60), 0
    else:
        x, a, c = rng.randint(-200, 400), rng.randint(20, 99), rng.randint(2, 19)
        b = rng.randint(-900, 900)
    b = b or 1
    d = a * x + b - c * x
    left = f"{'' if a == 1 else a}x {_signed(b)}"
    equation = f"{left} = {c}x {_signed(d)}" if c else f"{left} = {d}"
    test = f"{a} * x {_signed(b)} == {c} * x {_signed(d)}" if c else f"{a} * x {_signed(b)} == {d}"
    right, wrong = _signed(-b), _signed(b)  # moving b to the other side changes its sign
    bottom = f"({a} - {c})" if c else f"{a}"
    careless = rng.random() < 0.5
    return Draft(
        family="equations",
        level=level,
        question=f"Solve {equation} for x." if careless else f"Find x if {equation}.",
        answer=x,
        claim="x = {n}",
        steps=(f"{a}x = {d - b}",) if level == 2 else (),
        programs=(f"print(({d} {right}) // {bottom})", f"x = ({d} {right}) // {bottom}\nprint(x)"),
        checks=(f"for x in range(-500, 501):\n    if {test}:\n        print(x)",),
        slips=(f"print(({d} {wrong}) // {bottom})", f"x = ({d} {wrong}) // {bottom}\nprint(x)"),
        broken=(f'print(solve("{equation}"))',),
        slip_rate=0.85 if careless and level == 3 else 0.0,
        correct_rate=CORRECT[level],
        again_rate=AGAIN[level],
    )


FAMILIES = (
    Family("divisors", _divisors, "the number of divisors of a number up to 4000"),
    Family("primes", _primes, "the number of primes in a range"),
    Family("counting", _counting, "multiples of one number, or of either of two, in an inclusive range"),
    Family("sequences", _sequences, "a term of a sequence given by a rule"),
    Family("equations", _equations, "linear equations with an integer solution"),
)
