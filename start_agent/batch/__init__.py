"""The batch runner, which solves many problems concurrently, and the run directory with their records.

::

    with RunDirectory.open(Path("runs/gsm8k"), config) as directory:
        progress = await run_batch(solver, problems, directory, BatchOptions(samples=4), seed=0, grade=grade)
    print(summarize(Path("runs/gsm8k")).accuracy)
"""

from start_agent.batch.executor import LocalExecutor, RolloutExecutor
from start_agent.batch.options import BatchOptions, RayOptions
from start_agent.batch.progress import Progress
from start_agent.batch.runner import has_pending, run_at, run_batch
from start_agent.batch.store import RunDirectory, read_records

__all__ = [
    "BatchOptions",
    "LocalExecutor",
    "Progress",
    "RayOptions",
    "RolloutExecutor",
    "RunDirectory",
    "has_pending",
    "read_records",
    "run_at",
    "run_batch",
]
