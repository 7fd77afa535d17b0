"""Conversations: continuing them, adding items, and persistence over restarts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai.types.conversations import Conversation, ConversationDeletedResource, ConversationItemList

from sandbox import FakeSandbox
from start_agent.engines.base import TurnRequest
from start_agent.engines.scripted import ScriptedEngine
from tests.support.apps import app_of, client_of
from tests.support.openai_types import parsed
from tests.support.responses import SCRIPT, respond, streamed, two_clients
from tests.unit.server.test_app import error


def says(request: TurnRequest) -> str:
    return "Hm.\n</think>\n\nAnswer.<|im_end|>"


async def created(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await client.post("/v1/conversations", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    parsed(Conversation, found)
    return found


async def items_of(client: httpx.AsyncClient, conversation: str, **query: Any) -> list[dict[str, Any]]:
    params: dict[str, Any] = {"order": "asc", "limit": 100, **query}
    body = (await client.get(f"/v1/conversations/{conversation}/items", params=params)).json()
    parsed(ConversationItemList, body)
    found: list[dict[str, Any]] = body["data"]
    return found


async def test_a_conversation_and_its_metadata() -> None:
    async with app_of([]) as app, client_of(app) as client:
        made = await created(client, metadata={"a": "b"})
        url = f"/v1/conversations/{made['id']}"
        assert (await client.get(url)).json() == made
        assert (await client.post(url, json={"metadata": {"c": "d"}})).json() == made | {"metadata": {"c": "d"}}
        assert (await client.get(url)).json()["metadata"] == {"c": "d"}
        gone = (await client.delete(url)).json()
        parsed(ConversationDeletedResource, gone)
        for method in ("GET", "DELETE"):
            assert error(await client.request(method, url), 404)["code"] == "conversation_not_found"
        error(await client.post(url, json={"metadata": {}}), 404)


async def test_items_are_added_listed_and_taken_out() -> None:
    async with app_of([]) as app, client_of(app) as client:
        name = (await created(client, items=[{"role": "system", "content": "Be short."}]))["id"]
        url = f"/v1/conversations/{name}/items"
        more = [{"role": "user", "content": str(number)} for number in range(5)]
        added = (await client.post(url, json={"items": more})).json()
        parsed(ConversationItemList, added)
        found = await items_of(client, name)
        assert found[1:] == added["data"] and len(found) == 6
        assert [one["id"] for one in await items_of(client, name, order="desc", limit=2)] == [
            found[5]["id"],
            found[4]["id"],
        ]
        assert await items_of(client, name, after=found[3]["id"]) == found[4:]
        assert (await client.get(f"{url}/{found[2]['id']}")).json() == found[2]
        assert (await client.delete(f"{url}/{found[2]['id']}")).json()["object"] == "conversation"
        assert await items_of(client, name) == [*found[:2], *found[3:]]
        for method in ("GET", "DELETE"):
            error(await client.request(method, f"{url}/{found[2]['id']}"), 404)
        error(await client.get(url, params={"after": "msg_0"}), 404)
        error(await client.get(url, params={"limit": 101}), 400)
        error(await client.get(url, params={"order": "random"}), 400)


async def test_responses_join_it() -> None:
    engine = ScriptedEngine(says)
    async with app_of(engine, settings={"hints": False}) as app, client_of(app) as client:
        name = (await created(client, items=[{"role": "system", "content": "Be short."}]))["id"]
        first = await respond(client, "One?", conversation=name)
        assert first["conversation"] == {"id": name}
        second = (await streamed(client, "Two?", conversation={"id": name}))[-1]["response"]
        found = await items_of(client, name)
        outputs = [*first["output"], *second["output"]]
        assert [one for one in found if one["id"] in {item["id"] for item in outputs}] == outputs
        roles = [one.get("role", one["type"]) for one in found]
        assert roles == ["system", "user", "reasoning", "assistant", "user", "reasoning", "assistant"]
        said = engine.tokenizer.decode(engine.requests[-1].token_ids)
        assert said.index("Be short.") < said.index("One?") < said.index("Answer.") < said.index("Two?")
        await client.delete(f"/v1/conversations/{name}")
        asked = {"model": "scripted", "input": "x", "conversation": name}
        assert error(await client.post("/v1/responses", json=asked), 404)["param"] == "conversation"


async def test_one_response_at_a_time() -> None:
    began, go_on = asyncio.Event(), asyncio.Event()

    async def answer(code: str) -> str:
        began.set()
        await go_on.wait()
        return "42"

    async with app_of(SCRIPT, sandbox=FakeSandbox(answer)) as app, client_of(app) as client:
        name = (await created(client))["id"]
        task = asyncio.create_task(respond(client, conversation=name))
        await began.wait()
        asked = {"model": "scripted", "input": "x", "conversation": name}
        assert error(await client.post("/v1/responses", json=asked), 409)["code"] == "conversation_in_use"
        go_on.set()
        await task
        await respond(client, conversation=name)


async def test_what_fails_or_is_cancelled_does_not_join() -> None:
    began = asyncio.Event()

    async def answer(code: str) -> str:
        began.set()
        await asyncio.Event().wait()
        return ""

    async with app_of(SCRIPT, sandbox=FakeSandbox(answer)) as app, client_of(app) as client:
        name = (await created(client))["id"]
        task = asyncio.create_task(streamed(client, conversation=name))
        await began.wait()
        (key,) = app.state.server.active._running
        await client.post(f"/v1/responses/{key[1]}/cancel")
        assert (await task)[-1]["response"]["status"] == "cancelled"
        assert await items_of(client, name) == []


async def test_a_conversation_that_is_deleted_meanwhile() -> None:
    """The answer is given all the same; that it is not stored is said."""
    began, go_on = asyncio.Event(), asyncio.Event()

    async def answer(code: str) -> str:
        began.set()
        await go_on.wait()
        return "42"

    async with app_of(SCRIPT, sandbox=FakeSandbox(answer)) as app, client_of(app) as client:
        name = (await created(client))["id"]
        task = asyncio.create_task(respond(client, conversation=name))
        await began.wait()
        await client.delete(f"/v1/conversations/{name}")
        go_on.set()
        response = await task
        assert (response["status"], response["start_agent"]["stored"]) == ("completed", False)


async def test_another_clients_conversation() -> None:
    async with two_clients(says) as (_, one, other):
        name = (await created(one, items=[{"role": "user", "content": "x"}]))["id"]
        url = f"/v1/conversations/{name}"
        item = (await items_of(one, name))[0]["id"]
        for method, path in (
            ("GET", ""),
            ("DELETE", ""),
            ("GET", "/items"),
            ("GET", f"/items/{item}"),
            ("DELETE", f"/items/{item}"),
        ):
            error(await other.request(method, url + path), 404)
        error(await other.post(url, json={"metadata": {}}), 404)
        error(await other.post(f"{url}/items", json={"items": [{"role": "user", "content": "x"}]}), 404)
        error(await other.post("/v1/responses", json={"model": "scripted", "input": "x", "conversation": name}), 404)
        assert len(await items_of(one, name)) == 1


@pytest.mark.parametrize(
    "body",
    [
        {"items": [{"role": "user", "content": "x"}] * 21},
        {"items": [{"type": "function_call"}]},
        {"metadata": {"a": 1}},
        {"unknown": 1},
        [],
    ],
)
async def test_what_it_cannot_be(body: Any) -> None:
    async with app_of([]) as app, client_of(app) as client:
        error(await client.post("/v1/conversations", json=body), 400)


async def test_a_state_file_outlives_the_server(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    async with app_of(says, settings={"hints": False}, state=path) as app, client_of(app) as client:
        name = (await created(client, metadata={"a": "b"}))["id"]
        first = await respond(client, "One?", conversation=name)
        alone = await respond(client, "Two?")
    engine = ScriptedEngine(says)
    async with app_of(engine, settings={"hints": False}, state=path) as app, client_of(app) as client:
        assert (await client.get(f"/v1/responses/{first['id']}")).json() == first
        assert (await client.get(f"/v1/conversations/{name}")).json()["metadata"] == {"a": "b"}
        await respond(client, "And?", conversation=name)
        assert "One?" in engine.tokenizer.decode(engine.requests[-1].token_ids)
        await respond(client, "And?", previous_response_id=alone["id"])
        assert "Two?" in engine.tokenizer.decode(engine.requests[-1].token_ids)
    async with app_of(says, settings={"hints": False}) as app, client_of(app) as client:
        error(await client.get(f"/v1/responses/{first['id']}"), 404)


async def test_a_store_that_fails_withholds_no_answer(tmp_path: Path) -> None:
    async with app_of(says, settings={"hints": False}, state=tmp_path / "state") as app, client_of(app) as client:
        store = app.state.server.store
        await store._in_thread(lambda: store._database.execute("PRAGMA query_only = 1").close())
        response = await respond(client, "One?")
        assert (response["status"], response["start_agent"]["stored"]) == ("completed", False)
        assert error(await client.post("/v1/conversations", json={}), 503)["code"] == "store_failed"
        assert str(tmp_path) not in (await client.get(f"/v1/responses/{response['id']}")).text
