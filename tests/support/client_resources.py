"""The parameters of ``openai``'s client for stored resources: responses, conversations, containers."""

from __future__ import annotations

from typing import Any

from openai import OpenAI

from tests.support.client_parameters import CHAT, COMPLETIONS, RESPONSES, Method, Parameter, differs, same, unset


def _response(client: OpenAI) -> str:
    return client.responses.create(model="scripted", input="x", max_output_tokens=1).id


def _conversation(client: OpenAI) -> str:
    return client.conversations.create(items=_MESSAGES).id


def _container(client: OpenAI) -> str:
    return client.containers.create(name="x").id


def _container_with_files(client: OpenAI) -> str:
    container = _container(client)
    for name in ("a", "b"):
        client.containers.files.create(container, file=(name, name.encode()))
    return container


_MESSAGES: Any = [{"type": "message", "role": "user", "content": text} for text in ("a", "b", "c")]
_PAIRS = {"a": "b"}
_AUTO = {"type": "disabled"}


def _pages(order: str = "asc") -> dict[str, Parameter]:
    """Of lists in pages; the order that is not the default."""
    return {
        "after": Parameter(refused=("x",)),
        "limit": Parameter(effects=((1, lambda a: len(a.body["data"]) == 1),), refused=(0, 101)),
        "order": Parameter(effects=((order, same_items_reversed),), refused=("up",)),
    }


def same_items_reversed(answer: Any) -> bool:
    """The list is the other way round."""
    found = [[item["id"] for item in body["data"]] for body in (answer.body, answer.plain)]
    return found[0] == found[1][::-1]


_NOT_INCLUDED = Parameter(refused=(["message.output_text.logprobs"],))

METHODS: dict[str, Method] = {
    "responses.create": RESPONSES,
    "chat.completions.create": CHAT,
    "completions.create": COMPLETIONS,
    "responses.retrieve": Method(
        {"response_id": _response},
        {
            "include": _NOT_INCLUDED,
            "include_obfuscation": Parameter(neutral=(False,), refused=(True,)),
            "starting_after": Parameter(refused=(1,)),
            "stream": Parameter(neutral=(False,), refused=(True,)),
        },
    ),
    "responses.delete": Method({"response_id": _response}),
    "responses.input_items.list": Method({"response_id": _response}, {"include": _NOT_INCLUDED, **_pages()}),
    "conversations.create": Method(
        {},
        {
            "items": Parameter(neutral=(_MESSAGES, None), refused=([{"type": "x"}],)),
            "metadata": Parameter(effects=((_PAIRS, same("metadata")),), refused=({"a": 1},)),
        },
    ),
    "conversations.retrieve": Method({"conversation_id": _conversation}),
    "conversations.update": Method(
        {"conversation_id": _conversation, "metadata": {}},
        {"metadata": Parameter(effects=((_PAIRS, same("metadata")),), refused=({"a": 1},))},
    ),
    "conversations.delete": Method({"conversation_id": _conversation}),
    "conversations.items.create": Method(
        {"conversation_id": _conversation, "items": _MESSAGES},
        {
            "include": _NOT_INCLUDED,
            "items": Parameter(effects=((_MESSAGES[:1], lambda a: len(a.body["data"]) == 1),), refused=([],)),
        },
    ),
    "conversations.items.list": Method({"conversation_id": _conversation}, {"include": _NOT_INCLUDED, **_pages()}),
    "containers.create": Method(
        {"name": "x"},
        {
            "expires_after": Parameter(
                effects=(({"anchor": "last_active_at", "minutes": 3}, same("expires_after")),),
                refused=({"anchor": "last_active_at", "minutes": 10_000},),
            ),
            "file_ids": Parameter(neutral=([],), refused=(["file_1"],)),
            "memory_limit": unset("4g"),
            "name": Parameter(effects=(("y", same("name")),), refused=(7,)),
            "network_policy": Parameter(
                neutral=(_AUTO,), refused=({"type": "allowlist", "allowed_domains": ["example.org"]},)
            ),
            "skills": Parameter(neutral=([],), refused=([{"type": "x"}],)),
        },
    ),
    "containers.list": Method(
        {"limit": 100}, {**_pages(), "name": Parameter(effects=(("nobody", lambda a: not a.body["data"]),))}
    ),
    "containers.retrieve": Method({"container_id": _container}),
    "containers.delete": Method({"container_id": _container}),
    "containers.files.create": Method(
        {"container_id": _container, "file": ("a.txt", b"a")},
        {
            "file": Parameter(effects=((("b.txt", b"bb"), differs),), refused=(("../a", b"a"),)),
            "file_id": Parameter(refused=("file_1",)),
        },
    ),
    "containers.files.list": Method({"container_id": _container_with_files}, _pages()),
    "models.list": Method({}),
    "models.retrieve": Method({"model": "scripted"}, {"model": Parameter(refused=("other",))}),
}
"""What the server does, by method."""

FILES = ("containers.files.retrieve", "containers.files.delete", "containers.files.content.retrieve")
"""What it does as well, with no other parameters than ids."""

NOT_HERE: dict[str, dict[str, Any]] = {
    "responses.compact": {"model": "scripted"},
    "responses.input_tokens.count": {"model": "scripted", "input": "x"},
    "chat.completions.list": {},
    "chat.completions.retrieve": {"completion_id": "x"},
    "chat.completions.update": {"completion_id": "x", "metadata": None},
    "chat.completions.delete": {"completion_id": "x"},
    "chat.completions.messages.list": {"completion_id": "x"},
    "models.delete": {"model": "scripted"},
}
"""Methods of the same resources that it does not have: 404 or 405."""

OF_THE_CLIENT = {"responses.parse", "responses.stream", "responses.connect", "responses.cancel"} | {
    "chat.completions.parse",
    "chat.completions.stream",
    "conversations.items.retrieve",
    "conversations.items.delete",
}
"""Methods that are tested apart, or that are others' with what the client does around them."""
