"""``start-agent serve`` with the pocket reasoner and the real sandbox: the Responses API with OpenAI's client."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.support.openai_types import accumulated, parsed_event, parsed_response
from tests.support.ports import free_port
from tests.support.responses import answer_of, calls_of, plain
from tests.support.servers import serving
from tests.support.waiting import eventually

pytestmark = pytest.mark.server

QUESTION, ANSWER = "What is 48613 * 7957?", "386813641"
KEYS = ("key-of-one", "key-of-another")
SEED = {"seed": 1}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    keys, port = folder / "keys", free_port()
    keys.write_text("\n".join(KEYS))
    options = ("--api-key-file", keys, "--state", folder / "state.sqlite", "--hint-probability", "0")
    with serving("start_agent", "serve", "--port", str(port), *options, port=port):
        yield f"http://127.0.0.1:{port}/v1"


@pytest.fixture
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=url, api_key=KEYS[0], max_retries=0) as client:
        yield client


def body(response: Any) -> dict[str, Any]:
    found: dict[str, Any] = response.to_dict()
    parsed_response(found)
    return found


def test_a_question_that_is_computed(client: OpenAI) -> None:
    response = client.responses.create(model="pocket", input=QUESTION)
    assert ANSWER in response.output_text
    (call, *_) = calls_of(body(response))
    assert call["status"] == "completed" and ANSWER in call["outputs"][0]["logs"]
    assert response.usage is not None and response.usage.output_tokens_details.reasoning_tokens > 0
    extension = body(response)["start_agent"]
    assert (extension["outcome"], extension["answer"]) == ("answered", ANSWER)


def test_a_stream_adds_up_to_the_answer(client: OpenAI) -> None:
    unstreamed = body(client.responses.create(model="pocket", input=QUESTION, temperature=0, extra_body=SEED))
    with client.responses.create(model="pocket", input=QUESTION, temperature=0, stream=True, extra_body=SEED) as stream:
        events: list[Any] = [event.to_dict() for event in stream]
    for event in events:
        parsed_event(event)
    items, _ = accumulated(events)
    assert items == events[-1]["response"]["output"]
    assert plain(events[-1]["response"]) == plain(unstreamed)
    with client.responses.stream(model="pocket", input=QUESTION, temperature=0, extra_body=SEED) as helper:
        final: Any = helper.get_final_response().to_dict()
    assert answer_of(final) == answer_of(unstreamed)


async def test_asynchronously(url: str) -> None:
    async with AsyncOpenAI(base_url=url, api_key=KEYS[0], max_retries=0) as client:
        unstreamed = body(await client.responses.create(model="pocket", input=QUESTION, temperature=0, extra_body=SEED))
        async with client.responses.stream(model="pocket", input=QUESTION, temperature=0, extra_body=SEED) as stream:
            final: Any = (await stream.get_final_response()).to_dict()
        assert answer_of(final) == answer_of(unstreamed)


def test_every_parameter(client: OpenAI) -> None:
    response = client.responses.create(
        model="pocket",
        input=[{"role": "user", "content": [{"type": "input_text", "text": QUESTION}]}],
        include=["code_interpreter_call.outputs", "message.output_text.logprobs"],
        top_logprobs=2,
        max_output_tokens=2000,
        max_tool_calls=3,
        metadata={"a": "b"},
        parallel_tool_calls=False,
        prompt_cache_key="key",
        reasoning={"context": "auto"},
        safety_identifier="me",
        service_tier="auto",
        store=True,
        temperature=0.1,
        text={"format": {"type": "text"}},
        tool_choice="auto",
        tools=[{"type": "code_interpreter", "container": {"type": "auto"}}],
        top_p=0.9,
        truncation="auto",
        user="me",
        extra_body={"seed": 5, "top_k": 10, "min_p": 0.05, "start_agent": {"hints": True, "hint": "Let me compute. "}},
    )
    found = body(response)
    assert found["output"][0]["content"][0]["text"].startswith("Let me compute. ")
    assert found["output"][-1]["content"][0]["logprobs"]
    assert body(client.responses.retrieve(response.id)) == found
    page = client.responses.input_items.list(response.id)
    assert [item.type for item in page.data] == ["message"]
    client.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id)


@pytest.mark.parametrize(
    ("more", "kind", "param"),
    [
        ({"model": "other"}, openai.NotFoundError, "model"),
        ({"background": True}, openai.BadRequestError, "background"),
        ({"tools": [{"type": "web_search"}]}, openai.BadRequestError, "tools.0.type"),
        ({"input": [{"role": "user", "content": "x" * 100_000}]}, openai.BadRequestError, "input"),
        ({"previous_response_id": "resp_0"}, openai.NotFoundError, "previous_response_id"),
    ],
)
def test_errors_are_the_clients_own(
    client: OpenAI, more: dict[str, Any], kind: type[openai.APIStatusError], param: str | None
) -> None:
    for stream in (False, True):
        with pytest.raises(kind) as error:
            client.responses.create(**({"model": "pocket", "input": QUESTION, "stream": stream} | more))
        assert error.value.body is not None and error.value.param == param


def test_conversations(client: OpenAI) -> None:
    conversation = client.conversations.create(metadata={"a": "b"})
    client.responses.create(model="pocket", input=QUESTION, conversation=conversation.id)
    items = client.conversations.items.list(conversation.id, order="asc")
    assert items.data[0].type == "message"
    assert len(items.data) >= 3
    assert client.conversations.delete(conversation.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.conversations.retrieve(conversation.id)


def test_a_container_with_its_files(client: OpenAI, url: str, tmp_path: Path) -> None:
    container = client.containers.create(name="mine")
    table = tmp_path / "table.csv"
    table.write_bytes(b"a,b\n1,2\n")
    file = client.containers.files.create(container.id, file=table)
    assert (file.path, file.bytes) == ("table.csv", 8)
    response = client.responses.create(
        model="pocket", input=QUESTION, tools=[{"type": "code_interpreter", "container": container.id}]
    )
    assert {call["container_id"] for call in calls_of(body(response))} == {container.id}
    assert [one.path for one in client.containers.files.list(container.id)] == ["table.csv"]
    content = client.containers.files.content.retrieve(file.id, container_id=container.id)
    assert content.read() == b"a,b\n1,2\n"
    with OpenAI(base_url=url, api_key=KEYS[1], max_retries=0) as other, pytest.raises(openai.NotFoundError):
        other.containers.files.content.retrieve(file.id, container_id=container.id)
    client.containers.files.delete(file.id, container_id=container.id)
    assert container.id in [one.id for one in client.containers.list()]
    client.containers.delete(container.id)
    with pytest.raises(openai.NotFoundError) as error:
        client.containers.retrieve(container.id)
    assert error.value.code == "container_expired"


async def test_a_client_that_goes_away_takes_its_response_along(url: str) -> None:
    async with AsyncOpenAI(base_url=url, api_key=KEYS[0], max_retries=0) as client:
        stream = await client.responses.create(model="pocket", input=QUESTION, stream=True)
        async for event in stream:
            if event.type == "response.created":
                name = event.response.id
            if event.type == "response.reasoning_text.delta":
                break
        await stream.close()
        await eventually(lambda: 'num_requests_running{model_name="pocket"} 0.0' in metrics(url))
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(name)


def metrics(url: str) -> str:
    with urllib.request.urlopen(f"{url.removesuffix('/v1')}/metrics") as answer:
        return str(answer.read().decode())
