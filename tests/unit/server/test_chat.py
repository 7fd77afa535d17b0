"""Chat completions: the responses, streamed and not, and refused requests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from sandbox import FakeSandbox, KernelStartError
from start_agent.engines.scripted import ScriptedEngine, byte_tokenizer, scripted_logprob
from start_agent.seeds import derive_seed
from tests.support.apps import app_of, client_of, state
from tests.support.openai_types import parsed
from tests.unit.server.test_app import error
from tests.unit.server.test_jobs import BrokenEngine
from tests.unit.server.test_responses_template import says, tokenizer

TOKENIZER = byte_tokenizer()
SCRIPT = ["Hm. </think>", "print(6*7)\n```\n", "So 42.</think>\nIt is \\boxed{42}.<|im_end|>"]
ANSWER = ["</think>\\boxed{42}<|im_end|>"]
BARE = {"hints": False}
OURS = {"start_agent", "reasoning", "reasoning_content", "prompt_token_ids", "token_ids", "token_authors"}


def body(**more: Any) -> dict[str, Any]:
    return {"model": "scripted", "messages": [{"role": "user", "content": "What is 6 * 7?"}], **more}


async def asked(app: FastAPI, **more: Any) -> dict[str, Any]:
    """An answer, which has the form of OpenAI's."""
    async with client_of(app) as client:
        response = await client.post("/v1/chat/completions", json=body(**more))
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    parsed(ChatCompletion, found, ours=OURS)
    return found


async def streamed(app: FastAPI, **more: Any) -> list[dict[str, Any]]:
    """The events of a stream, each of which has the form of OpenAI's."""
    async with client_of(app) as client:
        response = await client.post("/v1/chat/completions", json=body(stream=True, **more))
    assert response.status_code == 200, response.text
    assert response.headers["X-Accel-Buffering"] == "no"
    *events, last = [part.removeprefix("data: ") for part in response.text.split("\n\n") if part]
    assert last == "[DONE]"
    chunks = [json.loads(event) for event in events]
    for chunk in chunks:
        parsed(ChatCompletionChunk, chunk, ours=OURS)
    return chunks


def accumulated(chunks: Sequence[dict[str, Any]], index: int = 0) -> dict[str, Any]:
    """A choice as a client puts it together."""
    found: dict[str, Any] = {"message": {}, "logprobs": {"content": [], "reasoning": []}}
    found |= {"token_ids": [], "token_authors": []}
    rows = [row for chunk in chunks for row in chunk["choices"] if row["index"] == index]
    for row in rows:
        for name, text in row["delta"].items():
            found["message"][name] = found["message"].get(name, "") + text
        for name in found["logprobs"]:
            found["logprobs"][name] += (row["logprobs"] or {}).get(name, [])
        for name in ("token_ids", "token_authors"):
            found[name] += row.get(name, [])
    assert [row["finish_reason"] for row in rows[:-1]] == [None] * (len(rows) - 1)
    return found | {name: rows[-1][name] for name in ("finish_reason", "start_agent")}


async def test_thoughts_code_and_outputs_are_apart_from_the_answer() -> None:
    async with app_of(SCRIPT) as app:
        found = await asked(app, seed=0)
    (choice,) = found["choices"]
    message = choice["message"]
    assert message["content"] == "It is \\boxed{42}." and choice["finish_reason"] == "stop"
    assert message["reasoning"] == message["reasoning_content"]
    assert "print(6*7)\n```\n```output\n42\n```\nSo 42." in message["reasoning"]
    assert "think>" not in message["reasoning"] and "tool_calls" not in message
    report = choice["start_agent"]
    assert (report["outcome"], report["answer"], report["seed"]) == ("answered", "42", 0)
    assert [cell["outcome"] for cell in report["cells"]] == ["ok"] and len(report["hints"]) == 1
    assert [span["kind"] for span in report["spans"]] == ["model", "hint", "model", "tool_output", "model"]
    usage, tokens = found["usage"], report["tokens"]
    assert usage["completion_tokens"] == tokens["reasoning"] + tokens["answer"]
    assert usage["completion_tokens"] == sum(row["tokens"] for row in report["spans"] if row["kind"] == "model")
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["completion_tokens_details"]["reasoning_tokens"] == tokens["reasoning"]


@pytest.mark.parametrize("interval", [1, 7])
async def test_a_stream_comes_to_the_same(interval: int) -> None:
    more = {"seed": 0, "logprobs": True, "top_logprobs": 2, "return_token_ids": True, "n": 2}
    async with app_of(SCRIPT, stream_interval=interval) as app:
        whole = await asked(app, **more)
        chunks = await streamed(app, stream_options={"include_usage": True}, **more)
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert all(chunk["usage"] is None for chunk in chunks[:-1]) and chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == whole["usage"]
    assert chunks[0]["prompt_token_ids"] == whole["prompt_token_ids"]
    for index in range(2):
        choice = whole["choices"][index]
        assert choice["message"].pop("refusal") is None and choice["logprobs"].pop("refusal") is None
        report, other = choice["start_agent"], accumulated(chunks, index)
        for one in (report, other["start_agent"]):
            for cell in one["cells"]:
                cell.pop("seconds")
        assert other | {"index": index} == choice


async def test_ids_are_those_of_the_trace_and_say_who_wrote_them() -> None:
    engine = ScriptedEngine(SCRIPT)
    async with app_of(engine) as app:
        found = await asked(app, seed=0, return_token_ids=True, logprobs=True)
    (choice,) = found["choices"]
    ids, authors = choice["token_ids"], choice["token_authors"]
    last = engine.requests[-1]
    assert [*found["prompt_token_ids"], *ids] == [*last.token_ids, *engine.turns[-1].token_ids]
    assert len(ids) == len(authors) and set(authors) == {"model", "hint", "tool_output"}
    assert authors.count("model") == found["usage"]["completion_tokens"]
    rows = choice["logprobs"]["content"]
    answer = TOKENIZER.encode("\nIt is \\boxed{42}.")
    assert [row["bytes"] for row in rows] == [list(TOKENIZER.bytes_of([one])) for one in answer]
    expected = [scripted_logprob(one, 0, len(TOKENIZER.pieces)).logprob for one in answer]
    assert [row["logprob"] for row in rows] == expected


async def test_without_tokens_asked_for_there_are_none() -> None:
    async with app_of(ANSWER, settings=BARE) as app:
        found = await asked(app)
    assert "prompt_token_ids" not in found and found["choices"][0]["logprobs"] is None
    assert "token_ids" not in found["choices"][0]


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
async def test_one_of_the_names_for_thoughts(name: str) -> None:
    async with app_of(SCRIPT, reasoning_field=name) as app:
        message = (await asked(app))["choices"][0]["message"]
        chunks = await streamed(app)
    assert {"reasoning", "reasoning_content"} & set(message) == {name}
    deltas = {key for chunk in chunks for row in chunk["choices"] for key in row["delta"]}
    assert deltas == {"role", "content", name}


@pytest.mark.parametrize(
    ("script", "more", "outcome"),
    [
        (["Hm, " * 10], {"max_completion_tokens": 8, "max_tokens": 100}, "token_limit"),
        (["Hm, " * 10], {"max_tokens": 8}, "token_limit"),
        (["Hm, " * 10], {"start_agent": {"max_turn_tokens": 8}}, "turn_limit"),
        (["again and " * 100], {"start_agent": {"repetition_tokens": 64}}, "repetition"),
    ],
)
async def test_every_limit_is_a_length_and_is_named(script: list[str], more: dict[str, Any], outcome: str) -> None:
    async with app_of(script, settings=BARE) as app:
        (choice,) = (await asked(app, **more))["choices"]
        (*_, last) = await streamed(app, **more)
    assert (choice["finish_reason"], choice["start_agent"]["outcome"]) == ("length", outcome)
    assert last["choices"][0]["finish_reason"] == "length"
    assert choice["message"]["content"] == ""


async def test_what_a_request_says_reaches_the_engine() -> None:
    engine = ScriptedEngine(ANSWER)
    async with app_of(engine, settings=BARE) as app:
        state(app).solver.sampling = state(app).solver.sampling.model_copy(update={"min_p": 0.25})
        await asked(app, temperature=0.5, top_p=0.9, top_k=7, seed=5, n=2, logprobs=True, top_logprobs=3)
        plain = await asked(app)
    first, second, third = engine.requests
    assert first.sampling.model_dump() == {"temperature": 0.5, "top_p": 0.9, "top_k": 7, "min_p": 0.25}
    assert first.num_logprobs == 3 and third.num_logprobs is None
    assert [one.seed for one in (first, second)] == [
        derive_seed(seed, "turn 1") for seed in (5, derive_seed(5, "choice 1"))
    ]
    assert third.seed is None and plain["choices"][0]["start_agent"]["seeded"] is False


async def test_stop_strings_count_after_thinking() -> None:
    async with app_of(["a STOP b</think>c STOP d<|im_end|>"], settings=BARE) as app:
        for stop in ("STOP", ["never", "STOP"]):
            (choice,) = (await asked(app, stop=stop))["choices"]
            assert (choice["message"]["reasoning"], choice["message"]["content"]) == ("a STOP b", "c ")
            assert choice["finish_reason"] == "stop"
            assert accumulated(await streamed(app, stop=stop))["message"]["content"] == "c "


async def test_a_budget_of_thoughts_ends_them() -> None:
    async with app_of(["Hm, " * 10, "\\boxed{1}<|im_end|>"], settings=BARE) as app:
        (choice,) = (await asked(app, thinking_token_budget=9))["choices"]
    assert choice["message"]["content"] == "\\boxed{1}" and choice["finish_reason"] == "stop"
    notices = [span for span in choice["start_agent"]["spans"] if span["kind"] == "notice"]
    assert len(notices) == 1 and choice["start_agent"]["tokens"]["notice"] == notices[0]["tokens"]


async def test_a_conversation_goes_through_the_template() -> None:
    engine = ScriptedEngine(ANSWER)
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi", "reasoning": "greet", "refusal": None, "tool_calls": []},
        {"role": "user", "content": "<|im_end|> 6 * 7?"},
    ]
    async with app_of(engine, settings=BARE, instruction="Box it.") as app:
        found = await asked(app, messages=messages, return_token_ids=True)
    text = TOKENIZER.decode(found["prompt_token_ids"])
    assert "system\nBe brief.<|im_end|>" in text and "assistant\nHi<|im_end|>" in text
    assert "<|im_end|> 6 * 7?\n\nBox it.<|im_end|>" in text
    ends = [one for one in found["prompt_token_ids"] if one in TOKENIZER.eos_ids]
    assert len(ends) == 4  # what the user spelled is text


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"model": None}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "user", "content": "x"}] * 4097}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}] * 1025}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages.0"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": "x", "reasoning": "y"}]}, "messages.0"),
        ({"messages": [{"role": "user", "content": "x", "name": "me"}]}, "messages.0.name"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content.0.type"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}, "messages"),
        (
            {"messages": [{"role": "assistant", "content": "", "reasoning": "a", "reasoning_content": "b"}]},
            "messages.0",
        ),
        ({"unknown": 1}, "unknown"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"n": 1.5}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stop": ""}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"reasoning_effort": "none"}, "reasoning_effort"),
        ({"reasoning_effort": "very"}, "reasoning_effort"),
        ({"tools": [{"type": "function", "function": {"name": "x"}}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"store": True}, "store"),
        ({"audio": {}}, "audio"),
        ({"start_agent": {"unknown": 1}}, "start_agent.unknown"),
        ({"start_agent": {"hint_probability": 2}}, "start_agent.hint_probability"),
        ({"start_agent": {"cell_timeout": 1000}}, "start_agent.cell_timeout"),
        ({"start_agent": {"hint": "math.self_reflection.connective.33"}}, "start_agent.hint"),
        ({"chat_template_kwargs": {"x": 1}}, "chat_template_kwargs"),
        (
            {"start_agent": {"thinking_token_budget": 1}, "thinking_token_budget": 1},
            "start_agent.thinking_token_budget",
        ),
    ],
)
async def test_what_cannot_be_done_is_refused_by_name(more: dict[str, Any], param: str | None) -> None:
    async with app_of([]) as app, client_of(app) as client:
        for stream in (False, True):
            response = await client.post("/v1/chat/completions", json=body(stream=stream) | more)
            found = error(response, 400)
            assert found["param"] == param and found["code"], found


async def test_what_is_longer_than_the_context_has_the_code_of_openai() -> None:
    engine = ScriptedEngine([], context_length=64)
    long = "x" * 200
    asked: dict[str, tuple[dict[str, Any], str]] = {
        "chat/completions": ({"messages": [{"role": "user", "content": long}]}, "messages"),
        "completions": ({"prompt": long}, "prompt"),
        "responses": ({"input": long}, "input"),
    }
    async with app_of(engine) as app, client_of(app) as client:
        for path, (given, param) in asked.items():
            found = error(await client.post(f"/v1/{path}", json={"model": "scripted"} | given), 400)
            assert (found["param"], found["code"]) == (param, "context_length_exceeded"), path


async def test_tools_are_refused_by_name_where_there_is_no_sandbox() -> None:
    async with app_of([], settings={"tools": False}) as app, client_of(app) as client:
        state(app).solver.sandbox = None
        found = error(await client.post("/v1/chat/completions", json=body(start_agent={"tools": True})), 400)
    assert (found["param"], found["code"]) == ("start_agent", "invalid_value")


async def test_what_asks_for_nothing_is_taken() -> None:
    neutral = {
        "n": 1,
        "frequency_penalty": 0,
        "presence_penalty": 0.0,
        "repetition_penalty": 1.0,
        "logit_bias": {},
        "user": "me",
        "metadata": {"a": "b"},
        "store": False,
        "tools": [],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "response_format": {"type": "text"},
        "modalities": ["text"],
        "service_tier": "auto",
        "verbosity": "medium",
        "reasoning_effort": "medium",
        "stop": None,
        "seed": None,
        "audio": None,
        "start_agent": None,
    }
    async with app_of(ANSWER, settings=BARE) as app:
        found = await asked(app, **neutral)
    assert found["choices"][0]["message"]["content"] == "\\boxed{42}"


async def test_only_streams_have_options_of_streams() -> None:
    async with app_of([]) as app, client_of(app) as client:
        response = await client.post("/v1/chat/completions", json=body(stream_options={"include_usage": True}))
        assert error(response, 400)["param"] == "stream_options"


async def test_another_model_is_not_here() -> None:
    async with app_of([]) as app, client_of(app) as client:
        response = await client.post("/v1/chat/completions", json=body(model="gpt-9"))
        assert error(response, 404)["code"] == "model_not_found"


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b'{"messages": "\\ud800"}', b"null", b"[]"])
async def test_bodies_that_are_no_requests(content: bytes) -> None:
    async with app_of([]) as app, client_of(app) as client:
        for kind in ("application/json", "text/plain"):
            response = await client.post("/v1/chat/completions", content=content, headers={"Content-Type": kind})
            error(response, 400)


async def test_a_prompt_that_is_too_long_is_refused_before_the_stream() -> None:
    async with app_of(ScriptedEngine([], context_length=64)) as app, client_of(app) as client:
        for stream in (False, True):
            messages = [{"role": "user", "content": "x" * 30_000}]
            response = await client.post("/v1/chat/completions", json=body(stream=stream, messages=messages))
            error(response, 400)


async def test_a_full_queue_is_said_before_the_stream() -> None:
    async with app_of(ANSWER, max_requests=1, queue=0) as app, client_of(app) as client:
        state(app).admission.reserve("another")
        for stream in (False, True):
            response = await client.post("/v1/chat/completions", json=body(stream=stream))
            assert error(response, 429)["code"] == "server_overloaded" and int(response.headers["Retry-After"]) > 0


async def test_a_failure_of_ours_is_503_or_an_event() -> None:
    async with app_of(BrokenEngine([])) as app, client_of(app) as client:
        response = await client.post("/v1/chat/completions", json=body())
        assert error(response, 503)["code"] == "engine_failed"
        stream = await client.post("/v1/chat/completions", json=body(stream=True))
    *_, failed, done = [part.removeprefix("data: ") for part in stream.text.split("\n\n") if part]
    assert json.loads(failed)["error"]["code"] == "engine_failed" and done == "[DONE]"
    assert "secret" not in stream.text


async def test_a_sandbox_that_starts_no_kernel_is_503() -> None:
    box = FakeSandbox()
    box.fail_next(KernelStartError("/secret"), 1)
    async with app_of(["```python\nx\n```\n"], sandbox=box) as app, client_of(app) as client:
        response = await client.post("/v1/chat/completions", json=body())
        assert error(response, 503)["code"] == "sandbox_failed" and "secret" not in response.text


async def test_the_extension_changes_one_request() -> None:
    engine = ScriptedEngine(["Hm. </think>", *ANSWER])
    async with app_of(engine) as app:
        without = await asked(app, start_agent={"hints": False})
        hinted = await asked(app, start_agent={"hints": False, "hint": "By hand first.\n"})
        again = await asked(app, seed=0)
    assert without["choices"][0]["start_agent"]["hints"] == []
    assert hinted["choices"][0]["message"]["reasoning"].startswith("By hand first.\n")
    assert len(again["choices"][0]["start_agent"]["hints"]) == 1


async def test_without_tools_code_is_a_thought() -> None:
    box = FakeSandbox()
    async with app_of(["```python\nx\n```\n</think>no<|im_end|>"], sandbox=box) as app:
        (choice,) = (await asked(app, start_agent={"tools": False, "hints": False}))["choices"]
    assert box.codes == [] and choice["message"]["reasoning"] == "```python\nx\n```\n"


PIECES = ["Some words. ", "\n", "```python\n", "```", "`", "x = 1\n", "é", "\u2028", " ", "\r\n", "data: x\n\n", "</t"]


@settings(max_examples=40)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), st.lists(st.sampled_from(PIECES[4:]), max_size=6))
async def test_whatever_a_model_writes_both_ways_say_the_same(thoughts: str, answer: list[str]) -> None:
    engine = ScriptedEngine(lambda request: thoughts + "</think>" + "".join(answer) + "<|im_end|>")
    async with app_of(engine, settings={"hints": False, "max_tool_calls": 1}) as app:
        whole = (await asked(app, max_tokens=400))["choices"][0]
        other = accumulated(await streamed(app, max_tokens=400))
    assert {name: whole["message"].get(name) for name in other["message"]} == other["message"]
    assert whole["finish_reason"] == other["finish_reason"]


async def test_variables_of_the_template() -> None:
    engine = ScriptedEngine(says, tokenizer=tokenizer())
    async with app_of(engine, settings=BARE) as app, client_of(app) as client:

        async def prompt(**more: Any) -> tuple[str, dict[str, Any]]:
            choice = (await asked(app, **more))["choices"][0]
            return TOKENIZER.decode(engine.requests[-1].token_ids), choice["message"]

        assert (await prompt(reasoning_effort="high"))[0].startswith("effort high\n")
        assert (await prompt(chat_template_kwargs={"reasoning_effort": "low"}))[0].startswith("effort low\n")
        for more in ({"reasoning_effort": "none"}, {"chat_template_kwargs": {"enable_thinking": False}}):
            text, message = await prompt(**more)
            assert text.endswith("\n</think>\n") and "reasoning" not in message and message["content"] == "Answer."
        earlier = [
            {"role": "user", "content": "6 * 7?"},
            {"role": "assistant", "content": "42.", "reasoning": "six sevens"},
            {"role": "user", "content": "And 7 * 7?"},
        ]
        assert "six sevens" not in (await prompt(messages=earlier))[0]
        kept = {"preserve_thinking": True}
        assert "<think>\nsix sevens\n</think>" in (await prompt(messages=earlier, chat_template_kwargs=kept))[0]
        twice: dict[str, Any] = {"reasoning_effort": "low", "chat_template_kwargs": {"reasoning_effort": "high"}}
        taken: dict[str, Any] = {"chat_template_kwargs": {"messages": []}}
        for refused in (twice, taken):
            error(await client.post("/v1/chat/completions", json=body(**refused)), 400)
