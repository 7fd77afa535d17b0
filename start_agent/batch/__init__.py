"""Many problems, many traces at once, nothing lost: the run directory and the runner that fills it.

::

    with RunDirectory.open(Path("runs/gsm8k"), config) as directory:
        tally = await run_batch(solver, problems, directory, BatchOptions(samples=4), seed=0, grade=grade)
    print(summarize(Path("runs/gsm8k")).accuracy)
"""

from start_agent.batch.options import BatchOptions
from start_agent.batch.runner import Tally, anything_owed, run_batch
from start_agent.batch.store import RunDirectory, read_records
from start_agent.batch.summary import Summary, summarize

__all__ = [
    "BatchOptions",
    "RunDirectory",
    "Summary",
    "Tally",
    "anything_owed",
    "read_records",
    "run_batch",
    "summarize",
]
