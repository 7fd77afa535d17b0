"""Analyzes runs: summaries, comparisons, statistics. Reads run directories, never writes them."""

from start_agent.analysis.run import Run
from start_agent.analysis.summary import Summary, summarize

__all__ = ["Run", "Summary", "summarize"]
