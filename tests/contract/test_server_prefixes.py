"""Prefix caching through the server: a chain of responses computes its common prefix once, and says so in the usage."""

from __future__ import annotations

import pytest

from start_agent.engines.transformers import TransformersEngine, TransformersOptions
from start_agent.engines.transformers.rows import LEAST_SHARED
from tests.support.apps import app_of, client_of, state
from tests.support.responses import respond

pytestmark = pytest.mark.slow

FIRST, SECOND = "What is 48613 * 7957?", "What is 12 * 34?"


@pytest.mark.parametrize("caching", [True, False])
async def test_a_chain_of_responses_reports_the_cached_tokens(caching: bool) -> None:
    engine = TransformersEngine("pocket", TransformersOptions(device="cpu", prefix_caching=caching))
    settings = {"tools": False, "hints": False, "max_tokens": 60}
    async with app_of(engine, settings=settings) as app, client_of(app) as client:
        first = await respond(client, FIRST, temperature=0)
        second = await respond(client, SECOND, temperature=0, previous_response_id=first["id"])
        again = await respond(client, SECOND, temperature=0, previous_response_id=first["id"])
        prompt = state(app).solver.format.prompt(FIRST).token_ids
    usage = [response["usage"] for response in (first, second, again)]
    cached = [one["input_tokens_details"]["cached_tokens"] for one in usage]
    assert usage[0]["input_tokens"] == len(prompt) and usage[1]["input_tokens"] > len(prompt)
    if caching:
        # The first question, at least; and of the same request again all but the token whose logits are needed.
        assert cached == [0, cached[1], usage[2]["input_tokens"] - 1]
        assert LEAST_SHARED <= cached[1] < usage[1]["input_tokens"]
    else:
        assert cached == [0, 0, 0]
