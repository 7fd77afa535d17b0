r"""n-digit addition as text: problems, the scratchpad of the paper, and extraction of answers.

The format is that of Nye et al. 2021 (Show Your Work), as used by STaR (Zelikman et al. 2022). It has a line per digit,
with the remaining digits, the result so far, and the carry::

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

The papers put spaces between digits, to keep GPT-J's tokenizer from merging them; here each character is a token.
Rationalization shows the answer after ``Target:``, before the scratchpad.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from start_agent.pocket.problems import Split, split_of
from start_agent.problem import Problem

DIGITS = (1, 2, 3, 4, 5)
"""Numbers of digits, as in the paper."""

OPEN, CLOSE = "<scratch>", "</scratch>"

_TRIES = 2000  # consecutive draws that repeat or belong to another split, after which a size counts as exhausted


def question(first: int, second: int) -> str:
    """The question; both numbers have the same number of digits."""
    return f"{first}+{second}"


def prompt(asked: str, hint: str | None = None) -> str:
    """The text before the scratchpad: the question, and the answer if it is given as a hint."""
    return direct_prompt(asked) + ("" if hint is None else f"{hint}\n") + f"{OPEN}\n"


def direct_prompt(asked: str) -> str:
    """The text before an answer without scratchpad."""
    return f"Input:\n{asked}\nTarget:\n"


def rationale(asked: str, digits: str | None = None) -> str:
    """The text after the prompt: the scratchpad and the answer.

    With ``digits`` (as many as the numbers have), these are written instead of the correct ones; carries stay correct.
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
    """The answer in a generated text, i.e. the text after the scratchpad; None if that is not closed."""
    _, closed, after = written.partition(CLOSE)
    return after.strip() if closed else None


def draw(seed: int, split: Split, digits: Sequence[int] = DIGITS) -> Iterator[Problem]:
    """Yield distinct problems, alternating the sizes, until all sizes are exhausted.

    The hash of a question determines its split, independent of the seed, so that splits never overlap. The level of a
    problem is its number of digits. With one digit there are only 100 problems, which are exhausted soon.
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
    """A random number with this many digits."""
    return rng.randrange(10 ** (size - 1) if size > 1 else 0, 10**size)
