"""Completions: raw prompts, and the continuation as one text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi import FastAPI
from openai.types import Completion

from start_agent.engines.scripted import ScriptedEngine, byte_tokenizer, scripted_logprob
from start_agent.tokens.prompts import ChatFormat
from tests.support.apps import app_of, client_of
from tests.support.openai_types import parsed
from tests.unit.server.test_app import error
from tests.unit.server.test_jobs import BrokenEngine

TOKENIZER = byte_tokenizer()
BARE = {"hints": False}
THINKS = "<|im_start|>user\n6 * 7?<|im_end|>\n<|im_start|>assistant\n<think>\n"
OURS = {"start_agent", "prompt_token_ids", "token_ids", "token_authors"}


def body(**more: Any) -> dict[str, Any]:
    return {"model": "scripted", "prompt": "6 * 7 = ", **more}


async def asked(app: FastAPI, **more: Any) -> dict[str, Any]:
    async with client_of(app) as client:
        response = await client.post("/v1/completions", json=body(**more))
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    parsed(Completion, found, ours=OURS)
    return found


async def streamed(app: FastAPI, **more: Any) -> list[dict[str, Any]]:
    async with client_of(app) as client:
        response = await client.post("/v1/completions", json=body(stream=True, **more))
    assert response.status_code == 200, response.text
    *events, last = [part.removeprefix("data: ") for part in response.text.split("\n\n") if part]
    assert last == "[DONE]"
    return [json.loads(event) for event in events]


async def test_a_prompt_without_thoughts_is_answered() -> None:
    engine = ScriptedEngine(["42, Wait, ```python\nx\n```\n<|im_end|>"])
    async with app_of(engine) as app:
        found = await asked(app, return_token_ids=True)
    (choice,) = found["choices"]
    assert choice["text"] == "42, Wait, ```python\nx\n```\n" and choice["finish_reason"] == "stop"
    assert choice["prompt_token_ids"] == TOKENIZER.encode("6 * 7 = ") == list(engine.requests[0].token_ids)
    assert choice["start_agent"]["cells"] == []


async def test_a_prompt_whose_thoughts_are_open_has_the_whole_loop() -> None:
    script = ["```python\nx\n```\n", "So 42.</think>\\boxed{42}<|im_end|>"]
    async with app_of(script, settings=BARE) as app:
        found = await asked(app, prompt=THINKS, return_token_ids=True)
    (choice,) = found["choices"]
    assert choice["text"] == "```python\nx\n```\n```output\n42\n```\nSo 42.</think>\\boxed{42}"
    assert choice["start_agent"]["answer"] == "42"
    assert choice["prompt_token_ids"] == TOKENIZER.encode_template(THINKS)
    assert choice["token_authors"].count("model") == found["usage"]["completion_tokens"]
    assert found["usage"]["completion_tokens_details"]["reasoning_tokens"] < found["usage"]["completion_tokens"]


async def test_a_model_may_open_its_thoughts_itself() -> None:
    script = ["Well. <think>```python\nx\n```\n", "</think>42<|im_end|>"]
    async with app_of(script, settings=BARE) as app:
        (choice,) = (await asked(app))["choices"]
    assert choice["text"] == "Well. <think>```python\nx\n```\n```output\n42\n```\n</think>42"


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("ab", ["ab"]),
        (["ab", "cde"], ["ab", "cde"]),
        (TOKENIZER.encode("ab"), ["ab"]),
        ([TOKENIZER.encode("ab"), TOKENIZER.encode("cde")], ["ab", "cde"]),
    ],
)
async def test_prompts_in_all_forms(prompt: Any, prompts: list[str]) -> None:
    engine = ScriptedEngine(lambda request: TOKENIZER.decode(request.token_ids).upper() + "<|im_end|>")
    async with app_of(engine) as app:
        found = await asked(app, prompt=prompt, n=2)
        echoed = await asked(app, prompt=prompt, echo=True)
    assert [choice["text"] for choice in found["choices"]] == [text.upper() for text in prompts for _ in range(2)]
    assert [choice["index"] for choice in found["choices"]] == list(range(2 * len(prompts)))
    assert [choice["text"] for choice in echoed["choices"]] == [text + text.upper() for text in prompts]
    assert found["usage"]["prompt_tokens"] == sum(map(len, prompts))


async def test_a_stream_comes_to_the_same() -> None:
    script = ["```python\nx\n```\n", "So 42.</think>It STOP here<|im_end|>"]
    more = {"prompt": [THINKS, THINKS], "seed": 0, "logprobs": 2, "return_token_ids": True, "stop": ["STOP"]}
    async with app_of(script, settings=BARE) as app:
        whole = await asked(app, **more)
        chunks = await streamed(app, stream_options={"include_usage": True}, **more)
    assert chunks[-1]["usage"] == whole["usage"]
    for choice in whole["choices"]:
        rows = [row for chunk in chunks for row in chunk["choices"] if row["index"] == choice["index"]]
        assert "".join(row["text"] for row in rows) == choice["text"]
        assert choice["text"].endswith("</think>It ") and rows[-1]["finish_reason"] == choice["finish_reason"] == "stop"
        for name in ("token_ids", "token_authors"):
            assert [one for row in rows for one in row.get(name, [])] == choice[name]
        for name, values in choice["logprobs"].items():
            assert [one for row in rows for one in (row["logprobs"] or {}).get(name, [])] == values
        authors = zip(choice["token_ids"], choice["token_authors"], strict=True)
        written = [token_id for token_id, author in authors if author == "model"]
        size = len(TOKENIZER.pieces)
        expected = [scripted_logprob(one, 2, size).logprob for one in written]
        assert choice["logprobs"]["token_logprobs"] == expected
        offsets, text = choice["logprobs"]["text_offset"], choice["text"]
        places = [at for at, token in zip(offsets, choice["logprobs"]["tokens"], strict=True) if token == "4"]
        assert all(text[at] == "4" for at in places)


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [""]}, "prompt"),
        ({"prompt": [[]]}, None),
        ({"prompt": [1 << 40]}, "prompt"),
        ({"prompt": ["x"] * 1025}, None),
        ({"prompt": ["x"] * 1024}, "n"),
        ({"prompt": [-1]}, None),
        ({"prompt": [1, "x"]}, None),
        ({"prompt": {"text": "x"}}, "prompt"),
        ({"echo": True, "logprobs": 1}, "echo"),
        ({"logprobs": 21}, "logprobs"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"best_of": 2}, "best_of"),
        ({"suffix": "x"}, "suffix"),
        ({"messages": []}, "messages"),
    ],
)
async def test_what_cannot_be_done_is_refused(more: dict[str, Any], param: str | None) -> None:
    async with app_of([]) as app, client_of(app) as client:
        found = error(await client.post("/v1/completions", json=body(**more)), 400)
        assert found["code"] and (found["param"] == param if param else found["param"].startswith("prompt"))


async def test_a_failure_ends_a_stream_with_an_error() -> None:
    async with app_of(BrokenEngine([])) as app:
        *_, last = await streamed(app)
    assert last["error"]["type"] == "service_unavailable_error"


@pytest.mark.parametrize(
    ("text", "thinking", "start"),
    [
        (THINKS, True, ""),
        (THINKS + "Hm.</think>", False, ""),
        (THINKS + "Hm.</think>1<|im_end|>\n<|im_start|>assistant\n", True, "<think>"),
        ("plain text", True, "<think>"),
        ("a</think>b<think>c", True, ""),
    ],
)
def test_markers_in_a_raw_prompt_say_whether_it_thinks(text: str, thinking: bool, start: str) -> None:
    prompt = ChatFormat(TOKENIZER).raw(TOKENIZER.encode_template(text))
    assert (prompt.thinking, prompt.think_start) == (thinking, start)
