"""Stored responses and conversations: private to a client, bounded, and available after a restart."""

from __future__ import annotations

import sqlite3
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from start_agent.errors import ConfigError
from start_agent.server import store as store_module
from start_agent.server.store import Entry, NotStored, Store, StoreError, TooLargeError


def response(name: str, previous: str | None = None, text: str = "") -> Entry:
    body = {"id": name, "output": [{"id": f"msg_{name}", "type": "message", "text": text}]}
    return Entry(body, [{"id": f"in_{name}", "type": "message"}], previous)


def conversation(name: str) -> Entry:
    return Entry({"id": name, "object": "conversation"}, [])


async def test_what_is_stored_is_there() -> None:
    async with Store() as store:
        await store.put("a", "response", response("resp_1"))
        assert await store.get("a", "response", "resp_1") == response("resp_1")


@pytest.mark.parametrize(("owner", "id"), [("b", "resp_1"), ("", "resp_1"), ("a", "resp_2"), ("a", "' OR '1'='1")])
async def test_another_clients_or_unknown_is_not_there(owner: str, id: str) -> None:
    async with Store() as store:
        await store.put("a", "response", response("resp_1"))
        for asked in (store.get(owner, "response", id), store.chain(owner, id), store.delete(owner, "response", id)):
            with pytest.raises(NotStored) as error:
                await asked
            assert error.value.id == id
        await store.get("a", "response", "resp_1")


async def test_a_conversation_is_no_response() -> None:
    async with Store() as store:
        await store.put("a", "conversation", conversation("conv_1"))
        with pytest.raises(NotStored):
            await store.get("a", "response", "conv_1")


async def test_a_chain_is_the_first_to_the_last() -> None:
    async with Store() as store:
        await store.put("a", "response", response("resp_1"))
        await store.put("a", "response", response("resp_2", "resp_1"))
        await store.put("a", "response", response("resp_3", "resp_2"))
        await store.put("a", "response", response("resp_4", "resp_1"))
        assert [one.body["id"] for one in await store.chain("a", "resp_3")] == ["resp_1", "resp_2", "resp_3"]
        assert [one.body["id"] for one in await store.chain("a", "resp_4")] == ["resp_1", "resp_4"]
        await store.delete("a", "response", "resp_1")
        with pytest.raises(NotStored) as error:
            await store.chain("a", "resp_3")
        assert error.value.id == "resp_1"


async def test_a_response_and_its_items_join_a_conversation_together() -> None:
    async with Store() as store:
        await store.put("a", "conversation", conversation("conv_1"))
        await store.put("a", "response", response("resp_1"), conversation="conv_1")
        items = (await store.get("a", "conversation", "conv_1")).items
        assert [item["id"] for item in items] == ["in_resp_1", "msg_resp_1"]
        with pytest.raises(NotStored):
            await store.put("a", "response", response("resp_2"), conversation="conv_2")
        with pytest.raises(NotStored):
            await store.get("a", "response", "resp_2")


async def test_a_change_that_fails_changes_nothing() -> None:
    def fail(entry: Entry) -> Entry:
        raise RuntimeError

    async with Store() as store:
        await store.put("a", "conversation", conversation("conv_1"))
        with pytest.raises(RuntimeError):
            await store.change("a", "conversation", "conv_1", fail)
        changed = await store.change("a", "conversation", "conv_1", lambda entry: replace(entry, items=[{"id": "x"}]))
        assert await store.get("a", "conversation", "conv_1") == changed


async def test_the_oldest_makes_room_unless_it_was_used() -> None:
    async with Store(max_entries=3) as store:
        for name in ("resp_1", "resp_2", "resp_3"):
            await store.put("a", "response", response(name))
        await store.get("a", "response", "resp_1")
        await store.put("a", "response", response("resp_4"))
        with pytest.raises(NotStored):
            await store.get("a", "response", "resp_2")
        for name in ("resp_1", "resp_3", "resp_4"):
            await store.get("a", "response", name)


async def test_one_client_does_not_push_out_another() -> None:
    async with Store(max_bytes=10_000) as store:
        await store.put("small", "response", response("resp_0"))
        for number in range(100):
            await store.put("large", "response", response(f"resp_{number + 1}", text="x" * 500))
        await store.get("small", "response", "resp_0")
        await store.get("large", "response", "resp_100")
        with pytest.raises(NotStored):
            await store.get("large", "response", "resp_1")


async def test_what_is_too_large_is_not_kept() -> None:
    async with Store(max_bytes=1_000) as store:
        await store.put("a", "response", response("resp_1"))
        await store.put("a", "response", response("resp_2", text="x" * 2_000))
        with pytest.raises(NotStored):
            await store.get("a", "response", "resp_2")


async def test_a_history_has_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MAX_HISTORY_BYTES", 1_000)
    async with Store() as store:
        await store.put("a", "response", response("resp_1", text="x" * 600))
        await store.put("a", "response", response("resp_2", "resp_1", text="x" * 600))
        assert len(await store.chain("a", "resp_1")) == 1
        with pytest.raises(TooLargeError):
            await store.chain("a", "resp_2")
        with pytest.raises(TooLargeError):
            await store.put("a", "response", response("resp_3", text="x" * 1_001))
        await store.put("a", "conversation", conversation("conv_1"))
        await store.put("a", "response", response("resp_4", text="x" * 600), conversation="conv_1")
        with pytest.raises(TooLargeError):
            await store.put("a", "response", response("resp_5", text="x" * 600), conversation="conv_1")
        with pytest.raises(NotStored):
            await store.get("a", "response", "resp_5")


async def test_a_store_that_is_closed() -> None:
    async with Store() as store:
        pass
    with pytest.raises(StoreError):
        await store.get("a", "response", "resp_1")


async def test_a_file_outlives_the_server(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    async with Store(path) as store:
        await store.put("key of a client", "response", response("resp_1", text="é \x1b[31m \\u0000"))
    async with Store(path) as store:
        assert await store.get("key of a client", "response", "resp_1") == response("resp_1", text="é \x1b[31m \\u0000")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"key of a client" not in path.read_bytes()


async def test_a_file_is_one_servers(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    async with Store(path):
        with pytest.raises(ConfigError):
            await Store(path).__aenter__()
    async with Store(path):
        pass


async def test_files_that_are_none_of_ours(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no database " * 100)
    later = tmp_path / "later"
    database = sqlite3.connect(later)
    database.execute("PRAGMA user_version = 99")
    database.close()
    for path in (text, later, tmp_path, tmp_path / "missing" / "state"):
        with pytest.raises(ConfigError):
            await Store(path).__aenter__()
    assert text.read_text().startswith("no database")


async def test_a_full_disk_is_an_error_of_its_own_type(tmp_path: Path) -> None:
    async with Store(tmp_path / "state") as store:
        await store.put("a", "response", response("resp_1"))
        await store._in_thread(lambda: store._database.execute("PRAGMA max_page_count = 10").close())
        with pytest.raises(StoreError):
            await store.put("a", "response", response("resp_2", text="x" * 1_000_000))
        assert await store.get("a", "response", "resp_1") == response("resp_1")
