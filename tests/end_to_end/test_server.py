"""``start-agent serve`` with the pocket reasoner and the real sandbox: OpenAI's client, shutdown, no leaks."""

from __future__ import annotations

import json
import signal
import urllib.request
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from start_agent.cli.exit_codes import ExitCode
from tests.support.openai_types import parsed
from tests.support.ports import free_port
from tests.support.processes import descendants, living
from tests.support.servers import serving
from tests.support.waiting import wait_for_exits

pytestmark = pytest.mark.server

ASKED: Any = {"model": "pocket", "messages": [{"role": "user", "content": "What is 48613 * 7957?"}], "seed": 1}
ANSWER = "386813641"
OURS = {"start_agent", "reasoning", "reasoning_content"}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    port = free_port()
    with serving("start_agent", "serve", "--port", str(port), port=port):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_a_question_that_is_computed(client: openai.OpenAI) -> None:
    found = client.chat.completions.create(**ASKED)
    parsed(ChatCompletion, found.to_dict(), ours=OURS)
    (choice,) = found.choices
    assert choice.message.content is not None and ANSWER in choice.message.content
    thoughts = choice.message.to_dict()["reasoning"]
    assert f"```output\n{ANSWER}\n```" in str(thoughts)
    report: Any = choice.to_dict()["start_agent"]
    assert report["answer"] == ANSWER and "ok" in [cell["outcome"] for cell in report["cells"]]


async def test_a_stream_comes_to_the_same(url: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        whole = await client.chat.completions.create(**ASKED)
        texts = {"content": "", "reasoning": ""}
        async for chunk in await client.chat.completions.create(**ASKED, stream=True):
            parsed(ChatCompletionChunk, chunk.to_dict(), ours=OURS)
            for row in chunk.choices:
                delta = row.delta.to_dict()
                for name in texts:
                    texts[name] += str(delta.get(name) or "")
    message = whole.choices[0].message.to_dict()
    assert texts == {name: message[name] for name in texts}


def test_several_samples_and_their_log_probabilities(client: openai.OpenAI) -> None:
    found = client.chat.completions.create(**ASKED, n=3, temperature=1.0, logprobs=True, top_logprobs=2)
    assert len(found.choices) == 3
    for choice in found.choices:
        assert choice.logprobs is not None and choice.logprobs.content
        assert all(row.logprob <= 0 and len(row.top_logprobs) == 2 for row in choice.logprobs.content)


def test_a_completion_continues_a_rendered_prompt(client: openai.OpenAI) -> None:
    chat: Any = client.chat.completions.create(**ASKED, temperature=0, extra_body={"return_token_ids": True}).to_dict()
    found = client.completions.create(model="pocket", prompt=chat["prompt_token_ids"], temperature=0, seed=1)
    message = chat["choices"][0]["message"]
    text = found.choices[0].text
    assert text.startswith(message["reasoning"]) and text.endswith(message["content"]) and "</think>" in text


def test_errors_are_the_clients_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(**ASKED, tools=[{"type": "function", "function": {"name": "x"}}])
    assert bad.value.param == "tools" and bad.value.code == "unsupported_parameter"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(**{**ASKED, "model": "gpt-9"})


def test_health_and_metrics(url: str, client: openai.OpenAI) -> None:
    client.chat.completions.create(**ASKED)
    with urllib.request.urlopen(f"{url}/health") as response:
        assert json.load(response) == {"status": "ok", "engine": "ok", "sandbox": "ok"}
    with urllib.request.urlopen(f"{url}/metrics") as response:
        text = response.read().decode().replace('model_name="pocket"', "").replace("start_agent:", "")
    rows = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    values = {name: float(value) for name, _, value in rows}
    assert values["num_requests_running{}"] == 0
    for name in (
        *("generation_tokens_total{}", "hints_total{}", 'cells_total{,outcome="ok"}', 'tokens_total{author="hint",}'),
        *("time_to_first_token_seconds_count{}", "kernels_started_total"),
    ):
        assert values[name] > 0, name


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_however_it_ends_nothing_is_left(number: signal.Signals) -> None:
    port = free_port()
    options = ("--port", str(port), "--timeout-graceful-shutdown", "0")
    with serving("start_agent", "serve", *options, port=port) as process:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            assert client.post("/v1/containers", json={"name": "mine"}).status_code == 200  # a kernel that stays
            with client.stream("POST", "/v1/chat/completions", json={**ASKED, "stream": True}) as stream:
                lines = stream.iter_lines()
                assert next(lines).startswith("data: ")
                below = descendants(process.pid)
                assert len(below) > 2
                process.send_signal(number)
                code = process.wait()
        assert code == (ExitCode.COMPLETE if number is signal.SIGTERM else -number)
        wait_for_exits(lambda: living(below))
