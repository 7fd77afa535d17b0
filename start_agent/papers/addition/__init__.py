"""STaR's addition with a scratchpad, in miniature: runs from end to end on a CPU.

::

    report = run_addition(Path("runs/addition"))            # report.json, report.md, addition.png
    report = run_addition(Path("runs/quick"), quick=True)   # the same in a minute, too short to show anything

Importing this package loads neither torch nor transformers.
"""

from start_agent.papers.addition.options import AdditionOptions
from start_agent.papers.addition.run import run_addition

__all__ = ["AdditionOptions", "run_addition"]
