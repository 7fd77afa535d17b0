"""Families of word problems: shopping with a distractor, dates, and units of time."""

from __future__ import annotations

import random
from datetime import date

from start_agent.pocket.families.base import AGAIN, CORRECT, Draft, Family

_NAMES = ("Ann", "Tom", "Mia", "Ben", "Eva", "Sam")
_THINGS = ("pens", "books", "cups", "maps", "bags", "hats")
_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


def _shopping(rng: random.Random, level: int) -> Draft:
    name = rng.choice(_NAMES)
    one, two = rng.sample(_THINGS, 2)
    size = {1: 9, 2: 12, 3: 99}[level]
    a, p = rng.randint(2, size), rng.randint(2, size)
    c, q = rng.randint(2, size), rng.randint(2, size)
    other = rng.randint(2, size)
    distractor = rng.choice((f"{name} has {other} friends.", f"The shop is {other} steps away."))
    careless = rng.random() < 0.5
    purse = 0
    if level == 1:
        question = f"{name} buys {a} {one} for {p} coins each. {distractor} How many coins does {name} pay?"
        answer, expression, slip = a * p, f"{a} * {p}", f"{a} * {p}"
        claim = f"{name} pays {{n}} coins"
    elif level == 2:
        question = f"{name} buys {a} {one} for {p} coins each and {c} {two} for {q} coins each. {distractor} " + (
            f"How many coins does {name} pay?" if careless else f"How many coins does {name} pay in all?"
        )
        answer, expression, slip = a * p + c * q, f"{a} * {p} + {c} * {q}", f"{a} * {p} + {c} * {q} + {other}"
        claim = f"{name} pays {{n}} coins"
    else:
        purse = a * p + c * q + rng.randint(1, 5000)
        question = (
            f"{name} has {purse} coins and buys {a} {one} for {p} coins each and {c} {two} for {q} coins each. "
            f"{distractor} How many coins are {'left' if careless else 'left in the end'}?"
        )
        answer = purse - a * p - c * q
        expression, slip = f"{purse} - {a} * {p} - {c} * {q}", f"{purse} - {a} * {p} + {c} * {q}"
        claim = "{n} coins are left"
    total = (
        f"total = {purse}\ntotal -= {a} * {p}\ntotal -= {c} * {q}\nprint(total)"
        if level == 3
        else f"total = {a} * {p}\ntotal += {c} * {q}\nprint(total)"
        if level == 2
        else f"total = 0\nfor k in range({a}):\n    total += {p}\nprint(total)"
    )
    return Draft(
        family="shopping",
        level=level,
        question=question,
        answer=answer,
        claim=claim,
        steps=(f"the {one} cost {a} * {p} = {a * p}", f"the {two} cost {c} * {q} = {c * q}") if level == 2 else (),
        programs=(f"print({expression})", f"coins = {expression}\nprint(coins)"),
        checks=(total,),
        slips=(f"print({slip})", f"coins = {slip}\nprint(coins)"),
        broken=(f"coins = {expression}\nprint(coin)",),
        slip_rate=0.85 if careless and level > 1 else 0.0,
        correct_rate=CORRECT[level],
        again_rate=AGAIN[level],
    )


def _dates(rng: random.Random, level: int) -> Draft:
    year = rng.randint(2019, 2029)
    first = date(year, rng.randint(1, 12 if level == 1 else 9), rng.randint(1, 15))
    if level == 1:
        second = first.replace(day=rng.randint(first.day + 1, 28))
    elif level == 2:
        second = date(year, first.month + rng.randint(1, 2), rng.randint(1, 28))
    else:
        second = date(year + rng.randint(0, 2), rng.randint(10, 12), rng.randint(1, 28))
    both = level == 3 or (level == 2 and rng.random() < 0.5)
    start = f"{first.day} {_MONTHS[first.month - 1]} {first.year}"
    end = f"{second.day} {_MONTHS[second.month - 1]} {second.year}"
    careless = rng.random() < 0.5
    if not both:
        question = f"How many days is it from {start} to {end}?"
    elif careless:
        question = f"How many days is it from {start} to {end}, if both days count?"
    else:
        question = f"How many days is it from {start} to {end}, counting the first day and the last day?"
    days = (second - first).days
    answer = days + both
    a = f"date({first.year}, {first.month}, {first.day})"
    b = f"date({second.year}, {second.month}, {second.day})"
    more = " + 1" if both else ""
    return Draft(
        family="dates",
        level=level,
        question=question,
        answer=answer,
        claim="it is {n} days",
        programs=(
            f"from datetime import date\nprint(({b} - {a}).days{more})",
            f"from datetime import date\nx = {a}\ny = {b}\nprint((y - x).days{more})",
        ),
        checks=(
            f"from datetime import date\nprint({b}.toordinal() - {a}.toordinal(){more})",
            f"from datetime import date, timedelta\nx = {a}\ncount = {int(both)}\nwhile x < {b}:\n"
            "    x += timedelta(days=1)\n    count += 1\nprint(count)",
        ),
        slips=(
            f"from datetime import date\nprint(({b} - {a}).days)",
            f"from datetime import date\nx = {a}\ny = {b}\nprint((y - x).days)",
        )
        if both
        else (),
        broken=(f"print(({b} - {a}).days{more})",),
        slip_rate=0.85 if both and careless else 0.05 if both else 0.0,
        correct_rate=CORRECT[level],
        again_rate=AGAIN[level],
    )


def _units(rng: random.Random, level: int) -> Draft:
    careless = rng.random() < 0.5
    if level == 1:
        hours, minutes = rng.randint(1, 9), rng.randint(0, 59)
        question = rng.choice(
            (
                f"How many minutes are {hours} hours and {minutes} minutes?",
                f"A film takes {hours} hours and {minutes} minutes. How many minutes is that?",
            )
        )
        answer, claim = hours * 60 + minutes, "that is {n} minutes"
        expression = slip = f"{hours} * 60 + {minutes}"
        total = f"total = {hours} * 60\ntotal += {minutes}\nprint(total)"
    elif level == 2:
        hours, minutes, seconds = rng.randint(1, 23), rng.randint(1, 59), rng.randint(1, 59)
        span = f"{hours} hours, {minutes} minutes and {seconds} seconds"
        question = f"How many seconds are {span}?" if careless else f"Something takes {span}. How many seconds is that?"
        answer, claim = hours * 3600 + minutes * 60 + seconds, "that is {n} seconds"
        expression = f"{hours} * 3600 + {minutes} * 60 + {seconds}"
        slip = f"{hours} * 60 + {minutes} * 60 + {seconds}"
        total = f"total = {hours} * 60 + {minutes}\ntotal = total * 60 + {seconds}\nprint(total)"
    else:
        days, hours, minutes = rng.randint(2, 99), rng.randint(1, 23), rng.randint(1, 59)
        span = f"{days} days, {hours} hours and {minutes} minutes"
        question = f"How many seconds are {span}?" if careless else f"Something takes {span}. How many seconds is that?"
        answer, claim = ((days * 24 + hours) * 60 + minutes) * 60, "that is {n} seconds"
        expression = f"(({days} * 24 + {hours}) * 60 + {minutes}) * 60"
        slip = f"({days} * 24 + {hours}) * 60 + {minutes}"
        total = f"total = {days} * 24 + {hours}\ntotal = total * 60 + {minutes}\ntotal = total * 60\nprint(total)"
    return Draft(
        family="units",
        level=level,
        question=question,
        answer=answer,
        claim=claim,
        programs=(f"print({expression})", f"x = {expression}\nprint(x)"),
        checks=(total,),
        slips=(f"print({slip})", f"x = {slip}\nprint(x)"),
        broken=(f"total += {expression}\nprint(total)",),
        slip_rate=0.85 if careless and level == 3 else 0.0,
        correct_rate=CORRECT[level],
        again_rate=AGAIN[level],
    )


FAMILIES = (
    Family("shopping", _shopping, "prices or change, with an irrelevant number"),
    Family("dates", _dates, "days between two dates, sometimes counting both ends"),
    Family("units", _units, "hours, minutes and days converted to smaller units"),
)
