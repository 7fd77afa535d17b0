"""Many problems, many traces at once, nothing lost: the run directory and the runner that fills it.

::

    with RunDirectory.open(Path("runs/gsm8k"), config) as directory:
        tally = await run_batch(solver, problems, directory, BatchOptions(samples=4), seed=0, grade=grade)
    print(summarize(Path("runs/gsm8k")).accuracy)
"""

from start_agent.batch.executor import Bench, Workbench
from start_agent.batch.options import BatchOptions, RayOptions
from start_agent.batch.progress import Tally
from start_agent.batch.runner import anything_owed, run_at, run_batch
from start_agent.batch.store import RunDirectory, read_records

__all__ = [
    "BatchOptions",
    "Bench",
    "RayOptions",
    "RunDirectory",
    "Tally",
    "Workbench",
    "anything_owed",
    "read_records",
    "run_at",
    "run_batch",
]
