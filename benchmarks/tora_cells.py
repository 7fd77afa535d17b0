"""Runs all code blocks of ToRA's answers to GSM8K again and compares the output with the recorded one.

Differences are classified:

* ``number``: the same numbers in another notation (another version of sympy, another last digit).
* ``error``: both are errors of the same type, of which ToRA kept only the last line.
* ``error_other``: both are errors, of different types.
* ``now_works``: the recorded output is an error or empty, ours is not; ``now_fails``: the reverse.
* ``cut``: the recorded output was cut off.
* ``unrecorded``: there is no recorded output.
* ``order``: the same elements in another order (sets, dictionaries).
* ``other``: none of these.

    python -m benchmarks.tora_cells [--quick] [--data FILE] [--show]
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: what is beside this one must not be taken for top-level modules
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import asyncio
import json
import math
import os
import re
import time
from collections import Counter
from collections.abc import Iterable

from rich.table import Table

from benchmarks.report import Report, Target, new_parser, rounded, run, say
from sandbox import Outcome, Result, Sandbox

TARGETS: dict[str, Target] = {"faults": ("<=", 0), "now_fails": ("<=", 0), "other": ("<=", 0)}
DATA = Path(__file__).parents[2] / "shared" / "data" / "traces" / "tora-70b-gsm8k.jsonl"
CLASSES = ("equal", "number", "order", "error", "error_other", "now_works", "now_fails", "cut", "unrecorded", "other")

_BLOCK = re.compile(r"```python\n(.*?)```(?:\s*```output\n(.*?)```)?", re.DOTALL)
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_ERROR = re.compile(r"(\w*(?:Error|Exception|Interrupt|Exit))\b")


def blocks(answer: str) -> list[tuple[str, str | None]]:
    """The code blocks of an answer, each with its recorded output, if there is one."""
    found = _BLOCK.finditer(answer)
    return [(block[1], None if block[2] is None else block[2].strip()) for block in found]


def classify(recorded: str | None, result: Result) -> str:
    """The class of a result, one of `CLASSES`."""
    ours = result.text.strip()
    if recorded is None:
        return "unrecorded"
    if ours == recorded:
        return "equal"
    recorded_error, our_error = _ERROR.search(recorded), result.outcome is not Outcome.OK
    if our_error and recorded_error:
        return "error" if recorded_error[1] in (result.error or "") else "error_other"
    if our_error:
        return "now_fails"
    if recorded_error or not recorded or "imeout" in recorded:
        return "now_works"
    if _same_numbers(recorded, ours):
        return "number"
    if sorted(re.split(r"\W+", recorded)) == sorted(re.split(r"\W+", ours)):
        return "order"
    if "..." in recorded or ours.startswith(recorded):
        return "cut"
    return "other"


def _same_numbers(one: str, other: str) -> bool:
    numbers = [[float(number) for number in _NUMBER.findall(text)] for text in (one, other)]
    words = [re.sub(r"[\s.0]+", "", _NUMBER.sub("", text)) for text in (one, other)]
    same = len(numbers[0]) == len(numbers[1]) > 0 and words[0] == words[1]
    return same and all(math.isclose(a, b, rel_tol=1e-9) for a, b in zip(*numbers, strict=True))


async def measure(arguments: argparse.Namespace) -> Report:
    """Run all code blocks and classify the results."""
    lines = arguments.data.read_text(encoding="utf-8").splitlines()
    answers = [blocks(answer) for line in lines for answer in json.loads(line)["code"]]
    answers = [answer for answer in answers if answer][: 100 if arguments.quick else None]
    classes: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    shown: list[tuple[str, str, str, str]] = []
    tasks = 2 * (os.cpu_count() or 1)

    async def work(box: Sandbox, mine: Iterable[list[tuple[str, str | None]]]) -> None:
        for answer in mine:
            async with box.session() as session:
                for code, recorded in answer:
                    result = await session.execute(code)
                    found = classify(recorded, result)
                    classes[found] += 1
                    outcomes[result.outcome] += 1
                    if found != "equal":
                        shown.append((found, code, recorded or "", result.text))

    began = time.perf_counter()
    async with Sandbox(size=tasks, prestart=4) as box:
        await asyncio.gather(*(work(box, answers[n::tasks]) for n in range(tasks)))
        faults = box.stats.faults
    seconds = time.perf_counter() - began
    if arguments.show:
        for found, code, recorded, ours in sorted(shown):
            say(f"=== {found}\n{code}--- recorded\n{recorded}\n--- ours\n{ours}")
    blocks_run = sum(classes.values())
    figures = {
        "answers": len(answers),
        "blocks": blocks_run,
        "faults": faults,
        "equal_share": classes["equal"] / blocks_run,
        "seconds": seconds,
        **{name: classes[name] for name in CLASSES},
    }
    table = Table("class", "blocks", "for instance: recorded", "ours", title="ToRA's code, run again")
    for name in CLASSES:
        example = next(((recorded, ours) for found, _, recorded, ours in shown if found == name), ("", ""))
        table.add_row(name, str(classes[name]), *(text[-60:].replace("\n", " ") for text in example))
    settings = {"quick": arguments.quick, "data": arguments.data.name, "tasks": tasks, "outcomes": dict(outcomes)}
    return Report("tora_cells", rounded(figures), TARGETS, settings, [table])


def main() -> int:
    """Run the command. Returns its exit code."""
    parser = new_parser("Runs all code blocks of ToRA's answers to GSM8K again and compares the output.")
    parser.add_argument("--data", type=Path, default=DATA, metavar="FILE", help="the recorded answers")
    parser.add_argument("--show", action="store_true", help="print all differences to stderr")
    return run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())
