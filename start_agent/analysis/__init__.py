"""Runs in numbers: summaries, comparisons, statistics. Reads run directories, writes none."""
