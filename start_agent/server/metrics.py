"""Prometheus metrics (``/metrics``). Metrics that vLLM also has use its names, with our prefix."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from start_agent.decoding.events import CellFinished
from start_agent.decoding.segments import Segment
from start_agent.server.rollout import Finished, Item, TokenCounts
from start_agent.trace import SpanKind, TraceOutcome

if TYPE_CHECKING:
    from sandbox import BaseSandbox
    from start_agent.server.admission import Admission

PREFIX = "start_agent:"

_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0, 10.0)
_REQUEST_SECONDS = (0.05, 0.1, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
_CELL_SECONDS = (0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_TOKENS = (16, 64, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)


class Metrics:
    """The metrics of one server, in a separate registry.

    Args:
        admission: the source of the numbers of running and waiting rollouts.
        sandbox: the source of the kernels' metrics; None without tools.
        model: the served name, a label of all metrics that vLLM labels with it.
    """

    def __init__(self, admission: Admission, sandbox: BaseSandbox | None, model: str) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self.model = model
        for name, text, value in (
            ("num_requests_running", "Running rollouts.", lambda: admission.running),
            ("num_requests_waiting", "Waiting rollouts.", lambda: admission.waiting),
        ):
            self._gauge(name, text, value)
        self.first_token = self._histogram("time_to_first_token_seconds", "Seconds to the first token.", _TOKEN_SECONDS)
        self.between = self._histogram("inter_token_latency_seconds", "Seconds between tokens.", _TOKEN_SECONDS)
        self.whole = self._histogram("e2e_request_latency_seconds", "Seconds of a request.", _REQUEST_SECONDS)
        self.queued = self._histogram("request_queue_time_seconds", "Seconds in the queue.", _REQUEST_SECONDS)
        self.prompt_size = self._histogram("request_prompt_tokens", "Tokens per prompt.", _TOKENS)
        self.written_size = self._histogram("request_generation_tokens", "Generated tokens per rollout.", _TOKENS)
        self.cell_seconds = self._histogram("cell_duration_seconds", "Seconds of a cell.", _CELL_SECONDS)
        self.prompt = self._counter("prompt_tokens", "Prompt tokens.")
        self.cached = self._counter("prompt_tokens_cached", "Prompt tokens found in the cache.")
        self.generated = self._counter("generation_tokens", "Generated tokens.")
        self.preempted = self._counter("num_preemptions", "Preemptions by the engine.")
        self.tokens = self._counter("tokens", "Tokens after the prompts, by author.", "author")
        self.hints = self._counter("hints", "Inserted hints.")
        self.cells = self._counter("cells", "Cells run, by outcome.", "outcome")
        self.ended = self._counter("request_success", "Finished traces, by reason.", "finished_reason")
        self.failed = self._counter("request_failure", "Failed rollouts, by reason.", "reason")
        if sandbox is not None:
            self._registry.register(_SandboxCollector(sandbox))

    def text(self) -> bytes:
        """All metrics in Prometheus' format."""
        return generate_latest(self._registry)

    def observed(self, prompt_tokens: int) -> Observer:
        """An observer of one rollout, starting with its request."""
        return Observer(self, prompt_tokens)

    def _gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        Gauge(PREFIX + name, text, ["model_name"], registry=self._registry).labels(self.model).set_function(value)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        made = Counter(PREFIX + name, text, ["model_name", *labels], registry=self._registry)
        return made if labels else made.labels(self.model)

    def _histogram(self, name: str, text: str, buckets: Iterable[float]) -> Histogram:
        made = Histogram(PREFIX + name, text, ["model_name"], buckets=tuple(buckets), registry=self._registry)
        return made.labels(self.model)


class Observer:
    """Observes one rollout.

    Attributes:
        latest: time of its latest item, by ``time.monotonic``.
    """

    def __init__(self, metrics: Metrics, prompt_tokens: int) -> None:
        self._metrics = metrics
        self._begun = self.latest = time.monotonic()
        self._written = False
        self._counted = TokenCounts()
        metrics.prompt.inc(prompt_tokens)
        metrics.prompt_size.observe(prompt_tokens)

    def admitted(self) -> None:
        """The rollout was admitted."""
        self._metrics.queued.observe(time.monotonic() - self._begun)

    def item(self, item: Item, counts: TokenCounts) -> None:
        """The rollout yielded an item; ``counts`` are the rollout's."""
        metrics, now = self._metrics, time.monotonic()
        match item:
            case Segment(author=SpanKind.MODEL, token_ids=token_ids) if token_ids:
                if self._written:
                    metrics.between.observe(now - self.latest)
                else:
                    self._written = True
                    metrics.first_token.observe(now - self._begun)
            case CellFinished(result):
                metrics.cells.labels(metrics.model, result.outcome.value).inc()
                metrics.cell_seconds.observe(result.duration_s)
            case Finished(trace, cost):
                metrics.hints.inc(sum(1 for _ in trace.of_kind(SpanKind.HINT)))
                metrics.cached.inc(counts.cached)
                metrics.preempted.inc(cost.preempted)
                assert trace.outcome is not None
                self._ended(trace.outcome, counts)
        self.latest = now

    def failed(self, reason: str, counts: TokenCounts) -> None:
        """The rollout ended without a trace."""
        self._metrics.failed.labels(self._metrics.model, reason).inc()
        self._count(counts)

    def _ended(self, outcome: TraceOutcome, counts: TokenCounts) -> None:
        metrics = self._metrics
        metrics.whole.observe(time.monotonic() - self._begun)
        metrics.written_size.observe(counts.completion)
        metrics.ended.labels(metrics.model, outcome.value).inc()
        self._count(counts)

    def _count(self, counts: TokenCounts) -> None:
        metrics = self._metrics
        metrics.generated.inc(counts.completion)
        for author, number in (
            (SpanKind.MODEL, counts.completion),
            (SpanKind.HINT, counts.hint),
            (SpanKind.TOOL_OUTPUT, counts.tool_output),
            (SpanKind.NOTICE, counts.notice),
        ):
            metrics.tokens.labels(metrics.model, author.value).inc(number)


class _SandboxCollector(Collector):
    """The sandbox's own statistics."""

    def __init__(self, sandbox: BaseSandbox) -> None:
        self._sandbox = sandbox

    def collect(self) -> Iterable[Metric]:
        """See ``prometheus_client``."""
        stats = self._sandbox.stats
        yield GaugeMetricFamily(PREFIX + "kernels_live", "Running or starting kernels.", stats.kernels_live)
        yield GaugeMetricFamily(PREFIX + "kernels_waiting", "Rollouts waiting for a kernel.", stats.waiting)
        yield CounterMetricFamily(PREFIX + "kernels_started", "Kernels started.", stats.kernels_started)
        yield CounterMetricFamily(PREFIX + "kernel_wait_seconds", "Total seconds waited for kernels.", stats.waited_s)
        yield CounterMetricFamily(PREFIX + "sandbox_faults", "Sandbox faults.", stats.faults)
