r"""Answers → verdicts.

::

    grade_math("\\boxed{\\frac{1}{2}}", "0.5").correct  # one answer
    async with GraderPool() as pool:  # many
        verdict = await grade(problem, trace, pool=pool, sandbox=box, decode=tokenizer.decode)

Which rule is asked: ``grade`` chooses by the problem's kind. In mathematics ``math.preliminary`` asks ``numbers``, then
``words`` (units, clock times, names) about both answers in one ``spelling``; what these leave open goes to
``expressions`` (Math-Verify), in a process of ``pool``. ``choice`` and ``code`` are the other kinds.

What a model did wrong is a `Verdict` with a `Reason`; where the infrastructure fails there is no verdict, but a
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
    """Judge an answer to a problem by the problem's kind.

    Args:
        problem: what was asked.
        answer: a finished trace, or the text that came after thinking; None for no answer.
        pool: open; grades math. Without one a process of this module's own does, one answer at a time.
        sandbox: open, with ``grading.code.LIMITS``; runs the tests of a code problem.
        decode: the tokenizer's; needed to find the program in a trace.

    Raises:
        ValueError: a code problem without sandbox, or its trace without ``decode``; a trace that has not ended.
        DataError: the tests of a code problem cannot be read.
        MissingExtraError, GradingError, SandboxError: there is no verdict.
    """
    if isinstance(answer, Trace) and answer.outcome is None:
        raise ValueError("the trace has not ended: there is nothing to grade yet")
    if problem.kind is Kind.CODE:
        if sandbox is None or problem.tests is None:
            raise ValueError("grading code needs a sandbox, and a problem with tests")
        if isinstance(answer, Trace):
            if decode is None:
                raise ValueError("grading the code of a trace needs the tokenizer's decode")
            answer = final_text(answer, decode)
        program = None if answer is None else last_code_block(answer, problem.tests.function)
        return await grade_code(program, problem.tests, sandbox)
    text = answer.answer if isinstance(answer, Trace) else answer
    said = final_text(answer, decode) if isinstance(answer, Trace) and decode is not None else None
    if problem.kind is Kind.CHOICE:
        verdict = grade_choice(text, problem.answer, problem.choices)
    else:
        text = _all_boxes(text if said is None else said, problem.answer) or text
        # People who are asked what percentage something is say "20" and "20%" alike; the gold answers say "20".
        percent = asks_for_percentage(problem.question)
        if pool is not None:
            verdict = await pool.grade_math(text, problem.answer, percent=percent)
        else:
            verdict = await asyncio.to_thread(grade_math, text, problem.answer, percent=percent)
    return verdict


def _all_boxes(text: str | None, gold: str) -> str | None:
    """The contents of all boxes, where a list is asked for and each of its items has a box; None elsewhere."""
    if text is None or "," not in gold or read_number(gold) is not None or gold.strip()[:1] in "([\\":
        return None
    found = boxed(text)
    return ", ".join(found) if len(found) > 1 and not any("," in content for content in found) else None
