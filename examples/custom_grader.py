"""Many problems with a custom grader: an answer within one percent of the gold answer is correct.

    python examples/custom_grader.py [RUN]

Run again, it computes only what is missing.
"""

import asyncio
import sys
from pathlib import Path

from start_agent import Trace, open_solver
from start_agent.batch import BatchOptions, RunDirectory, run_batch
from start_agent.batch.store import read_records
from start_agent.build import SolverConfig
from start_agent.grading import Reason, Verdict
from start_agent.problem import Problem
from start_agent.tasks import load

TOLERANCE = 0.01
PROBLEMS = 12


async def nearly(problem: Problem, trace: Trace) -> Verdict:
    """Correct within the tolerance. If there can be no verdict for now, raise ``GradingError``: it is retried."""
    if trace.answer is None:
        return Verdict(False, None, Reason.NO_ANSWER, problem.answer)
    try:
        answer, gold = float(trace.answer), float(problem.answer)
    except ValueError:
        return Verdict(False, trace.answer, Reason.UNREADABLE, problem.answer)
    right = abs(answer - gold) <= TOLERANCE * abs(gold)
    return Verdict(right, trace.answer, Reason.EQUAL if right else Reason.DIFFERENT, problem.answer)


async def main(run: Path) -> float:
    """Solve and grade; returns the share of correct answers."""
    solver_config = SolverConfig.of(model="pocket", hints=False)
    # The configuration is stored: a run with another grader in the same folder is refused.
    config = {"grader": f"within {TOLERANCE}", "model": solver_config.solve.model, "problems": "pocket"}
    with RunDirectory.open(run, config) as directory:
        async with open_solver(solver_config, sessions=4) as solver:
            await run_batch(solver, load("pocket", limit=PROBLEMS), directory, BatchOptions(), grade=nearly)
    verdicts = [bool(record["correct"]) for record in read_records(run)]
    print(f"{sum(verdicts)} of {len(verdicts)} within {TOLERANCE:.0%}")
    return sum(verdicts) / len(verdicts)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/nearly")))
