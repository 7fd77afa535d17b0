r"""Grades answers: decides whether an answer to a problem is correct.

::

    grade_math("\\boxed{\\frac{1}{2}}", "0.5").correct  # one answer
    async with GraderPool() as pool:  # many
        verdict = await grade(problem, trace, pool=pool, sandbox=box, decode=tokenizer.decode)

``grade`` chooses the rules by the problem's kind. For mathematics ``math.preliminary`` normalizes both answers
(``spelling``) and tries ``numbers``, then ``words`` (units, clock times, names); what these cannot decide goes to
``expressions`` (Math-Verify) in a process of ``pool``. ``choice`` and ``code`` grade the other kinds.

A model's mistake is a `Verdict` with a `Reason`. If the infrastructure fails there is no verdict, but a
`GradingError` or a `SandboxError`. Importing this package loads neither Math-Verify nor SymPy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from sandbox import BaseSandbox
from start_agent.grading.choice import grade_choice
from start_agent.grading.code import grade_code
from start_agent.grading.math import asks_for_percentage
from start_agent.grading.numbers import read_number
from start_agent.grading.pool import GraderPool, grade_math
from start_agent.grading.verdict import Reason, Verdict
from start_agent.problem import Kind, Problem
from start_agent.tokens.answers import boxed, final_text, last_code_block
from start_agent.trace import Trace

__all__ = ["GraderPool", "Reason", "Verdict", "grade", "grade_choice", "grade_code", "grade_math"]


async def grade(
    problem: Problem,
    answer: Trace | str | None,
    *,
    pool: GraderPool | None = None,
    sandbox: BaseSandbox | None = None,
    decode: Callable[[Iterable[int]], str] | None = None,
) -> Verdict:
    """Grade an answer to a problem with the rules for the problem's kind.

    Args:
        problem: the problem.
        answer: a finished trace, or the text after thinking; None for no answer.
        pool: an open pool for math problems. Without it, one shared process grades one answer at a time.
        sandbox: an open sandbox with ``grading.code.LIMITS``, for the tests of a code problem.
        decode: the tokenizer's ``decode``; needed to find the program in a trace.

    Raises:
        ValueError: a code problem without a sandbox, or its trace without ``decode``; an unfinished trace.
        DataError: the tests of a code problem cannot be read.
        MissingExtraError, GradingError, SandboxError: the answer could not be graded.
    """
    if isinstance(answer, Trace) and answer.outcome is None:
        raise ValueError("the trace is not finished; grade it after it has ended")
    if problem.kind is Kind.CODE:
        if sandbox is None or problem.tests is None:
            raise ValueError("grading code needs a sandbox and a problem with tests")
        if isinstance(answer, Trace):
            if decode is None:
                raise ValueError("grading the code of a trace needs the tokenizer's decode")
            answer = final_text(answer, decode)
        program = None if answer is None else last_code_block(answer, problem.tests.function)
        return await grade_code(program, problem.tests, sandbox)
    text = answer.answer if isinstance(answer, Trace) else answer
    after_thinking = final_text(answer, decode) if isinstance(answer, Trace) and decode is not None else None
    if problem.kind is Kind.CHOICE:
        verdict = grade_choice(text, problem.answer, problem.choices)
    else:
        text = _all_boxes(text if after_thinking is None else after_thinking, problem.answer) or text
        # Asked for a percentage, models answer both "20" and "20%"; the gold answers have "20".
        percent = asks_for_percentage(problem.question)
        if pool is not None:
            verdict = await pool.grade_math(text, problem.answer, percent=percent)
        else:
            verdict = await asyncio.to_thread(grade_math, text, problem.answer, percent=percent)
    return verdict


def _all_boxes(text: str | None, gold: str) -> str | None:
    """The contents of all boxes, if the gold answer is a list and each item has its own box; otherwise None."""
    if text is None or "," not in gold or read_number(gold) is not None or gold.strip()[:1] in "([\\":
        return None
    found = boxed(text)
    return ", ".join(found) if len(found) > 1 and not any("," in content for content in found) else None
