"""Metrics: names and values."""

from __future__ import annotations

import math
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from sandbox import FakeSandbox
from start_agent.trace import SpanKind
from tests.support.apps import app_of, client_of, state
from tests.unit.server.test_jobs import BrokenEngine, StuckEngine, all_of, job_of

SCRIPT = ["Hm. </think>", "print(6*7)\n```\n", "So 42.</think>\nIt is \\boxed{42}.<|im_end|>"]


async def values(app: Any) -> dict[tuple[str, str], float]:
    """Each sample by its name and the value of its label other than the model's."""
    async with client_of(app) as client:
        text = (await client.get("/metrics")).text
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = {name: value for name, value in sample.labels.items() if name not in ("model_name", "le")}
            assert sample.labels.get("model_name", "scripted") == "scripted"
            found[sample.name.removeprefix("start_agent:"), "".join(labels.values())] = sample.value
    return found


async def test_a_rollout_is_counted_by_who_wrote_it() -> None:
    async with app_of(SCRIPT) as app:
        before = await values(app)
        batch = await all_of(job_of(state(app)))
        found = await values(app)
        trace = batch[-1][1].trace  # type: ignore[union-attr]
    assert before["generation_tokens_total", ""] == 0
    for author in (SpanKind.MODEL, SpanKind.HINT, SpanKind.TOOL_OUTPUT):
        assert found["tokens_total", author.value] == trace.count(author)
    assert found["prompt_tokens_total", ""] == found["request_prompt_tokens_sum", ""] == trace.count(SpanKind.PROMPT)
    assert found["generation_tokens_total", ""] == trace.count(SpanKind.MODEL)
    assert found["hints_total", ""] == 1 and found["cells_total", "ok"] == 1
    assert found["cell_duration_seconds_count", ""] == 1
    assert found["request_success_total", "answered"] == 1
    for name in ("time_to_first_token_seconds", "e2e_request_latency_seconds", "request_queue_time_seconds"):
        assert found[f"{name}_count", ""] == 1 and math.isfinite(found[f"{name}_sum", ""])
    assert found["inter_token_latency_seconds_count", ""] > 1


async def test_what_runs_waits_and_fails() -> None:
    engine = StuckEngine()
    async with app_of(engine, max_requests=1) as app:
        job = job_of(state(app), 3)
        await engine.reached.wait()
        found = await values(app)
        assert (found["num_requests_running", ""], found["num_requests_waiting", ""]) == (1, 2)
        job.close()
        await job.ended.wait()
        found = await values(app)
        assert (found["num_requests_running", ""], found["num_requests_waiting", ""]) == (0, 0)
        assert found["request_failure_total", "cancelled"] == 3


async def test_failures_have_reasons() -> None:
    async with app_of(BrokenEngine([])) as app:
        job = job_of(state(app))
        await job.ended.wait()
        found = await values(app)
    assert found["request_failure_total", "engine_failed"] == 1
    assert found["tokens_total", "model"] == len("Hm")


async def test_the_sandbox_is_shown_where_there_is_one() -> None:
    async with app_of([], sandbox=FakeSandbox()) as app:
        found = await values(app)
    assert {"kernels_live", "kernels_waiting", "kernels_started_total", "kernel_wait_seconds_total"} <= {
        name for name, _ in found
    }
