"""Benchmarks. Each prints a table and, as its last line, one JSON object (``report.py``).

python -m benchmarks.pocket --quick
python -m benchmarks.engine --quick
"""
