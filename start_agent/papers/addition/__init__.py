"""STaR's addition experiment with a scratchpad at small scale: runs end to end on a CPU.

::

    report = run_addition(Path("runs/addition"))            # report.json, report.md, addition.png
    report = run_addition(Path("runs/quick"), quick=True)   # a smoke test of one minute

Importing this package imports neither torch nor transformers.
"""

from start_agent.papers.addition.options import AdditionOptions
from start_agent.papers.addition.run import run_addition

__all__ = ["AdditionOptions", "run_addition"]
