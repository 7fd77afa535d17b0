"""Runs in numbers: summaries, comparisons, statistics. Reads run directories, writes none."""

from start_agent.analysis.run import Run
from start_agent.analysis.summary import Summary, summarize

__all__ = ["Run", "Summary", "summarize"]
