r"""n-digit addition as text: problems, the scratchpad of the paper, and what counts as a right answer.

The form is that of Nye et al. 2021 (Show Your Work), as STaR (Zelikman et al. 2022) uses it. A line for each digit:
what is left to add, the digits found so far, and the carry::

    Input:
    624+259
    Target:
    <scratch>
    624+259,C:0
    62+25,3C:1
    6+2,83C:0
    ,883C:0
    0883
    </scratch>
    883

The papers put spaces between the digits, to keep GPT-J's vocabulary from joining them; here a character is a token.
Rationalization shows the answer after ``Target:``, before the scratchpad begins.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from start_agent.pocket.problems import Split, split_of
from start_agent.problem import Problem

DIGITS = (1, 2, 3, 4, 5)
"""The sizes of the paper."""

OPEN, CLOSE = "<scratch>", "</scratch>"

_TRIES = 2000  # draws in a row that may repeat or fall in another split, before a size is spent


def question(first: int, second: int) -> str:
    """The question; both numbers have the same count of digits."""
    return f"{first}+{second}"


def prompt(asked: str, hint: str | None = None) -> str:
    """What stands before the scratchpad: the question, and the answer where it is shown as a hint."""
    return direct_prompt(asked) + ("" if hint is None else f"{hint}\n") + f"{OPEN}\n"


def direct_prompt(asked: str) -> str:
    """What stands before an answer that is given at once."""
    return f"Input:\n{asked}\nTarget:\n"


def rationale(asked: str, digits: str | None = None) -> str:
    """What follows the prompt: the scratchpad that does the sum, and the answer.

    With ``digits``, as many as the numbers have, it writes these down instead of the sum's; its carries stay right.
    """
    first, second = asked.split("+")
    lines, found, carry = list[str](), "", 0
    while first:
        lines.append(f"{first}+{second},{found}C:{carry}")
        total = int(first[-1]) + int(second[-1]) + carry
        digit = total % 10 if digits is None else digits[len(first) - 1]
        found, carry = f"{digit}{found}", total // 10
        first, second = first[:-1], second[:-1]
    lines += [f",{found}C:{carry}", f"{carry}{found}", CLOSE, str(int(f"{carry}{found}"))]
    return "\n".join(lines)


def answer(asked: str) -> str:
    """The sum, as text."""
    first, second = asked.split("+")
    return str(int(first) + int(second))


def final_answer(written: str) -> str | None:
    """The answer in what a model wrote: what follows its scratchpad; None where that is not closed."""
    _, closed, after = written.partition(CLOSE)
    return after.strip() if closed else None


def draw(seed: int, split: Split, digits: Sequence[int] = DIGITS) -> Iterator[Problem]:
    """Distinct problems without end (until all sizes are spent), going round the sizes in turn.

    The hash of a question decides its split, whatever seed drew it, so that splits can never overlap. The level of a
    problem is its count of digits. Of one digit there are only 100 problems: they are spent soon.
    """
    rng = random.Random(f"start-agent addition {seed}")
    seen: set[str] = set()
    sizes = list(digits)
    while sizes:
        for size in list(sizes):
            for _ in range(_TRIES):
                asked = question(*(number(rng, size) for _ in range(2)))
                if asked not in seen and split_of(asked) == split:
                    seen.add(asked)
                    yield Problem(asked, answer(asked), meta={"level": size})
                    break
            else:
                sizes.remove(size)


def number(rng: random.Random, size: int) -> int:
    """A number of this many digits."""
    return rng.randrange(10 ** (size - 1) if size > 1 else 0, 10**size)
