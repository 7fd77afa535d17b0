"""OpenAI's client against a real server: every method and parameter; streams add up to the unstreamed result.

The tables are in ``tests/support/client_parameters.py`` and ``client_resources.py``. What they do not have, as a newer
client may, fails here until it is decided. ``make test-clients`` runs this with the newest client as well.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.completion import Completion

from tests.support.client_parameters import Answer, Method, Parameter
from tests.support.client_resources import FILES, METHODS, NOT_HERE, OF_THE_CLIENT
from tests.support.openai_types import accumulated, parsed, parsed_event, parsed_response
from tests.support.ports import free_port
from tests.support.responses import plain
from tests.support.servers import serving

pytestmark = pytest.mark.server

CONTAINERS = 100
KEYS = ("key-of-one", "key-of-another")
SEED = {"seed": 3}
OURS = {"start_agent", "reasoning", "reasoning_content"}
TRANSPORT = {"extra_headers", "extra_query", "extra_body", "timeout"}
RESOURCES = ("responses", "chat.completions", "completions", "containers", "conversations", "models")

CASES = [(name, parameter) for name, method in METHODS.items() for parameter in method.parameters]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    keys, port = tmp_path_factory.mktemp("server") / "keys", free_port()
    keys.write_text("\n".join(KEYS))
    options = ("--api-key-file", keys, "--containers", str(CONTAINERS), "--max-requests", "2", "--queue", "2")
    with serving("tests.support.scripted_server", str(port), *options, port=port):
        yield f"http://127.0.0.1:{port}/v1"


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=url, api_key=KEYS[0], max_retries=0) as client:
        yield client


def methods_of(resource: Any, prefix: str) -> Iterator[str]:
    """The methods of a resource and of those in it."""
    for name in dir(resource):
        if not name.startswith(("_", "with_")):
            found = getattr(resource, name)
            if inspect.ismethod(found):
                yield f"{prefix}.{name}"
            else:
                yield from methods_of(found, f"{prefix}.{name}")


def test_every_method_of_the_client_is_decided(client: OpenAI) -> None:
    there = {name for path in RESOURCES for name in methods_of(attrgetter(path)(client), path)}
    assert there == METHODS.keys() | NOT_HERE.keys() | OF_THE_CLIENT | set(FILES)


@pytest.mark.parametrize("name", METHODS)
def test_every_parameter_of_the_client_is_decided(client: OpenAI, name: str) -> None:
    method = METHODS[name]
    decided = method.base.keys() | method.parameters.keys() | ({"stream"} if method.streams else set())
    assert set(signature(client, name)) - TRANSPORT == decided


def signature(client: OpenAI, name: str) -> Mapping[str, inspect.Parameter]:
    """The parameters of a method."""
    return inspect.signature(attrgetter(name)(client)).parameters


@pytest.mark.parametrize("name", NOT_HERE)
def test_what_is_not_here_is_said(client: OpenAI, name: str) -> None:
    with pytest.raises(openai.APIStatusError) as error:
        attrgetter(name)(client)(**NOT_HERE[name])
    assert error.value.status_code in (404, 405) and isinstance(error.value.body, dict)


def made(client: OpenAI, value: Any) -> Any:
    """A value of the tables: some are made by the client first."""
    return value(client) if callable(value) else value


def call(client: OpenAI, name: str, arguments: Mapping[str, Any], *, stream: bool = False) -> Any:
    """What a method returns, as JSON; a stream as what it adds up to."""
    method = METHODS[name]
    if not method.streams:
        return attrgetter(name)(client)(**arguments).to_dict()
    more: Any = {"extra_body": SEED} if name == "responses.create" else SEED if "seed" not in arguments else {}
    if stream:
        events = [event.to_dict() for event in attrgetter(name)(client)(**arguments, **more, stream=True)]
        return response_of(events) if name == "responses.create" else completion_of(events)
    found = attrgetter(name)(client)(**arguments, **more).to_dict()
    if name == "responses.create":
        parsed_response(found)
    else:
        parsed(ChatCompletion if name.startswith("chat") else Completion, found, ours=OURS)
    return found


def response_of(events: list[Any]) -> Any:
    """The response that a stream of events adds up to."""
    for event in events:
        parsed_event(event)
    items, _ = accumulated(events)
    assert items == events[-1]["response"]["output"]
    return events[-1]["response"]


def completion_of(chunks: list[Any]) -> Any:
    """The completion that a stream of chunks adds up to, without what streams do not say."""
    choices: dict[int, Any] = {}
    for chunk in chunks:
        chat = chunk["object"] == "chat.completion.chunk"
        # The type of a completion, which its chunks are as well, knows of none that goes on.
        rows = (
            chunk["choices"]
            if chat
            else [row | {"finish_reason": row["finish_reason"] or "stop"} for row in chunk["choices"]]
        )
        parsed(ChatCompletionChunk if chat else Completion, chunk | {"choices": rows}, ours=OURS)
        for row in chunk["choices"]:
            texts = row["delta"] if chat else {"text": row["text"]}
            choice = choices.setdefault(row["index"], {"texts": {}})
            for key in texts.keys() - {"role"}:
                choice["texts"][key] = choice["texts"].get(key, "") + texts[key]
            for kind, rows in (row["logprobs"] or {}).items():
                choice.setdefault("logprobs", {}).setdefault(kind, []).extend(rows or ())
            choice |= {key: row[key] for key in ("finish_reason", "start_agent") if row.get(key)}
    return {"choices": [choices[index] for index in sorted(choices)]}


def comparable(name: str, body: Any) -> Any:
    """An answer as a stream says it, without what differs from one to the next."""
    if name == "responses.create":
        return plain(body) | {"conversation": None}
    if "usage" not in body:
        return plain(body)
    choices = []
    for choice in body["choices"]:
        texts = {key: text for key, text in choice.get("message", choice).items() if key in (*OURS, "content", "text")}
        texts.pop("start_agent", None)
        logprobs = {kind: rows or [] for kind, rows in (choice["logprobs"] or {}).items()}
        found = {key: choice[key] for key in ("finish_reason", "start_agent")}
        choices.append(found | {"texts": texts} | ({"logprobs": logprobs} if logprobs else {}))
    return plain({"choices": choices})


def arguments_of(client: OpenAI, method: Method, **more: Any) -> dict[str, Any]:
    """The arguments of a call."""
    return {name: made(client, value) for name, value in {**method.base, **more}.items()}


def accepts(client: OpenAI, name: str, parameter: str, value: Any, check: Any = None) -> None:
    """A value is accepted, and the check holds; streamed it comes to the same."""
    method = METHODS[name]
    arguments = arguments_of(client, method)
    given = arguments | {parameter: made(client, value)}
    if parameter != "stream_options":
        found = call(client, name, given)
        if check is not None:
            assert check(Answer(found, call(client, name, arguments), given[parameter], client)), (value, found)
    if method.streams:
        if parameter != "tools":  # a container that is named in the answer; others have changed by what was asked
            given[parameter] = made(client, value)
        streamed = call(client, name, given, stream=True)
        if parameter not in ("stream_options", "previous_response_id"):
            assert comparable(name, streamed) == comparable(name, found)


@pytest.mark.parametrize(("name", "parameter"), CASES)
def test_a_parameter(client: OpenAI, name: str, parameter: str) -> None:
    known = METHODS[name].parameters[parameter]
    assert known != Parameter()
    for value in known.neutral:
        accepts(client, name, parameter, value)
    for value, check in known.effects:
        accepts(client, name, parameter, value, check)
    for value in known.refused:
        for stream in (False, True) if METHODS[name].streams else (False,):
            if parameter == "stream_options" and not stream:
                continue
            with pytest.raises((openai.BadRequestError, openai.NotFoundError)) as error:
                call(client, name, arguments_of(client, METHODS[name], **{parameter: value}), stream=stream)
            assert str(error.value.param).partition(".")[0].removesuffix("[]") == parameter
            assert "\n" not in error.value.message and "Traceback" not in error.value.message


async def test_the_asynchronous_client_gets_the_same(client: OpenAI, url: str) -> None:
    async with AsyncOpenAI(base_url=url, api_key=KEYS[0], max_retries=0) as waiting:
        for name in ("responses.create", "chat.completions.create", "completions.create"):
            arguments: Any = arguments_of(client, METHODS[name])
            more: Any = {"extra_body": SEED}
            whole = (await attrgetter(name)(waiting)(**arguments, **more)).to_dict()
            stream = await attrgetter(name)(waiting)(**arguments, **more, stream=True)
            events = [event.to_dict() async for event in stream]
            streamed = response_of(events) if name == "responses.create" else completion_of(events)
            assert comparable(name, streamed) == comparable(name, whole)
            assert comparable(name, whole) == comparable(name, await asyncio.to_thread(call, client, name, arguments))


def test_the_clients_own_accumulation(client: OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "What is 6*7?"}]
    whole: Any = client.chat.completions.create(model="scripted", messages=messages, seed=3)
    with client.chat.completions.stream(model="scripted", messages=messages, seed=3) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == whole.choices[0].message.content
    assert final.choices[0].finish_reason == whole.choices[0].finish_reason
    with client.responses.stream(model="scripted", input="What is 6*7?", extra_body=SEED) as events:
        response: Any = events.get_final_response()
    answer: Any = client.responses.create(model="scripted", input="What is 6*7?", extra_body=SEED)
    assert response.output_text == answer.output_text
    usage: Any = [
        *client.chat.completions.create(
            model="scripted", messages=messages, seed=3, stream=True, stream_options={"include_usage": True}
        )
    ][-1]
    assert usage.choices == [] and usage.usage == whole.usage


def test_errors_are_the_clients_types(client: OpenAI, url: str) -> None:
    asked: Any = {"model": "scripted", "input": "x"}
    with OpenAI(base_url=url, api_key="wrong-key", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError) as unknown:
            stranger.responses.create(**asked)
        assert unknown.value.code == "invalid_api_key"
    ended = client.responses.create(**asked)
    with pytest.raises(openai.ConflictError):
        client.responses.cancel(ended.id)
    with pytest.raises(openai.NotFoundError):
        client.conversations.items.retrieve("msg_x", conversation_id=client.conversations.create().id)
    with pytest.raises(openai.RateLimitError) as full:
        for _ in range(CONTAINERS + 1):
            client.containers.create(name="one too many")
    assert full.value.code == "too_many_containers"
    for container in list(client.containers.list()):
        client.containers.delete(container.id)
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="scripted", messages=[{"role": "user", "content": "x"}], n=100)
    with pytest.raises(openai.APIStatusError) as large:
        client.responses.create(model="scripted", input="x" * (2 << 20))
    assert large.value.status_code == 413


def test_items_and_files(client: OpenAI, tmp_path: Path) -> None:
    conversation = client.conversations.create(items=[{"type": "message", "role": "user", "content": "a"}])
    (item,) = client.conversations.items.list(conversation.id).data
    assert item.id is not None
    assert client.conversations.items.retrieve(item.id, conversation_id=conversation.id).to_dict() == item.to_dict()
    client.conversations.items.delete(item.id, conversation_id=conversation.id)
    assert client.conversations.items.list(conversation.id).data == []
    container = client.containers.create(name="x")
    file = client.containers.files.create(container.id, file=("a.bin", bytes(range(256))))
    assert client.containers.files.retrieve(file.id, container_id=container.id).to_dict() == file.to_dict()
    content = client.containers.files.content.retrieve(file.id, container_id=container.id)
    assert content.read() == bytes(range(256))
    client.containers.files.delete(file.id, container_id=container.id)
    with pytest.raises(openai.NotFoundError):
        client.containers.files.retrieve(file.id, container_id=container.id)
