"""The server's benchmark: reading metrics and process statistics."""

from __future__ import annotations

import os

from benchmarks.server import _AUTHORS, _BUSY, _quantile, _sum
from benchmarks.server_process import running
from sandbox import FakeSandbox
from start_agent.server.admission import Admission
from start_agent.server.metrics import Metrics


def test_tokens_and_requests_are_read_from_the_servers_metrics() -> None:
    admission = Admission(2, 2)
    metrics = Metrics(admission, FakeSandbox(), "pocket")
    metrics.tokens.labels("pocket", "model").inc(40)
    metrics.tokens.labels("pocket", "hint").inc(2)
    tickets = admission.reserve("", 3)
    assert _sum(_AUTHORS, metrics.text()) == 42
    assert _sum(_BUSY, metrics.text()) == 3
    for ticket in tickets:
        ticket.close()
    assert _sum(_BUSY, metrics.text()) == 0


def test_quantiles_are_of_the_values() -> None:
    assert _quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert _quantile([1.0], 0.99) == 1.0
    assert _quantile([], 0.5) == 0.0


def test_this_process_is_among_those_that_run() -> None:
    usage = running(os.getpid())
    assert usage.processes >= 1
    assert usage.resident_mb > 1
    assert usage.descriptors >= 3
