"""Containers and their files over HTTP: ownership, names and sizes, and persistent variables."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from openai.types import ContainerCreateResponse
from openai.types.containers import FileCreateResponse

from sandbox import FakeSandbox, Image, Limits, Outcome, Result
from start_agent.decoding.solver import Solver
from start_agent.engines.scripted import ScriptedEngine
from start_agent.server.app import create_app
from start_agent.server.auth import Keys
from start_agent.server.container_session import STATE_LOST
from start_agent.server.options import ServerOptions
from tests.support.apps import app_of, client_of, state
from tests.support.openai_types import parsed
from tests.support.responses import SCRIPT, calls_of, respond, streamed, two_clients
from tests.unit.server.test_app import error

AUTO = {"type": "code_interpreter", "container": {"type": "auto"}}


def tool(container: str) -> dict[str, Any]:
    return {"tools": [{"type": "code_interpreter", "container": container}]}


async def created(client: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    answer = await client.post("/v1/containers", json={"name": "mine", **more})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    parsed(ContainerCreateResponse, body)
    return body


async def uploaded(client: httpx.AsyncClient, container: str, name: str, data: bytes) -> httpx.Response:
    return await client.post(f"/v1/containers/{container}/files", files={"file": (name, data)})


async def test_a_container_is_made_listed_and_deleted() -> None:
    async with app_of(SCRIPT) as app, client_of(app) as client:
        expires = {"anchor": "last_active_at", "minutes": 5}
        first, second = await created(client), await created(client, expires_after=expires)
        assert first["expires_after"] == {"anchor": "last_active_at", "minutes": 20}
        assert second["expires_after"] == expires
        assert (await client.get(f"/v1/containers/{first['id']}")).json()["id"] == first["id"]
        page = (await client.get("/v1/containers", params={"order": "asc", "limit": 1})).json()
        assert [one["id"] for one in page["data"]] == [first["id"]] and page["has_more"]
        page = (await client.get("/v1/containers", params={"order": "asc", "after": first["id"]})).json()
        assert [one["id"] for one in page["data"]] == [second["id"]] and not page["has_more"]
        assert (await client.get("/v1/containers", params={"name": "other"})).json()["data"] == []
        deleted = await client.delete(f"/v1/containers/{first['id']}")
        assert deleted.json() == {"id": first["id"], "object": "container.deleted", "deleted": True}
        assert error(await client.get(f"/v1/containers/{first['id']}"), 404)["code"] == "container_expired"
        assert error(await client.get("/v1/containers/cntr_0"), 404)["code"] == "container_not_found"
        asked = {"model": "scripted", "input": "x", **tool(first["id"])}
        assert error(await client.post("/v1/responses", json=asked), 404)["code"] == "container_expired"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": "x", "memory_limit": "4g"}, "memory_limit"),
        ({"name": "x", "file_ids": ["file_1"]}, "file_ids"),
        ({"name": "x", "network_policy": {"type": "allowlist", "allowed_domains": ["a"]}}, "network_policy"),
        ({"name": "x", "skills": [{}]}, "skills"),
        ({"name": "x", "expires_after": {"anchor": "last_active_at", "minutes": 0}}, "expires_after.minutes"),
        ({"name": "x", "expires_after": {"anchor": "last_active_at", "minutes": 21}}, "expires_after.minutes"),
        ({"name": "x" * 1000}, "name"),
        ({"name": "x", "other": 1}, "other"),
    ],
)
async def test_what_a_container_cannot_be(body: dict[str, Any], param: str) -> None:
    async with app_of(SCRIPT) as app, client_of(app) as client:
        assert error(await client.post("/v1/containers", json=body), 400)["param"] == param


async def test_there_are_only_so_many() -> None:
    async with app_of(SCRIPT, containers=2) as app, client_of(app) as client:
        first, _ = await created(client), await created(client)
        assert error(await client.post("/v1/containers", json={"name": "x"}), 429)["code"] == "too_many_containers"
        await client.delete(f"/v1/containers/{first['id']}")
        await created(client)


async def test_variables_live_from_one_response_to_the_next() -> None:
    box = FakeSandbox(lambda code: "42")
    async with app_of(SCRIPT, sandbox=box) as app, client_of(app) as client:
        container = (await created(client))["id"]
        for _ in range(2):
            (call,) = calls_of(await respond(client, **tool(container)))
            assert call["container_id"] == container
        assert box.stats.sessions == 1
        (call,) = calls_of((await streamed(client, **tool(container)))[-1]["response"])
        assert (call["container_id"], box.stats.sessions) == (container, 1)


async def test_the_container_of_a_response_can_be_used_again() -> None:
    box = FakeSandbox(lambda code: "42")
    async with app_of(SCRIPT, sandbox=box) as app, client_of(app) as client:
        first = await respond(client)
        (call,) = calls_of(first)
        name = call["container_id"]
        (again,) = calls_of(await respond(client, previous_response_id=first["id"]))
        (named,) = calls_of(await respond(client, **tool(name)))
        (listed,) = calls_of(await respond(client, [*first["output"], {"role": "user", "content": "And?"}]))
        assert {again["container_id"], named["container_id"], listed["container_id"]} == {name}
        assert box.stats.sessions == 1
        (other,) = calls_of(await respond(client))
        assert other["container_id"] != name


async def test_what_is_not_stored_leaves_no_container() -> None:
    box = FakeSandbox(lambda code: "42")
    async with app_of(SCRIPT, sandbox=box) as app, client_of(app) as client:
        (call,) = calls_of(await respond(client, store=False))
        asked = {"model": "scripted", "input": "x", **tool(call["container_id"])}
        assert error(await client.post("/v1/responses", json=asked), 404)["code"] == "container_expired"
        containers = state(app).containers
        assert containers is not None
        await containers.settled()
        assert box.open_sessions == 0
        await respond(client, start_agent={"tools": False})
        assert containers.list("") == []


async def test_a_fresh_kernel_is_reported() -> None:
    """The conversation has cells of a container that is gone: its next output says so."""
    async with app_of(SCRIPT) as app, client_of(app) as client:
        first = await respond(client)
        (call,) = calls_of(first)
        await client.delete(f"/v1/containers/{call['container_id']}")
        (again,) = calls_of(await respond(client, previous_response_id=first["id"]))
        assert again["container_id"] != call["container_id"]
        assert again["outputs"] == [{"type": "logs", "logs": f"{STATE_LOST}\n42"}]
        assert again["start_agent"]["cell"]["state_lost"] is True


async def test_one_response_at_a_time() -> None:
    began, go_on = asyncio.Event(), asyncio.Event()

    async def answer(code: str) -> str:
        began.set()
        await go_on.wait()
        return "42"

    async with app_of(SCRIPT, sandbox=FakeSandbox(answer)) as app, client_of(app) as client:
        container = (await created(client))["id"]
        task = asyncio.create_task(respond(client, **tool(container)))
        await began.wait()
        asked = {"model": "scripted", "input": "x", **tool(container)}
        assert error(await client.post("/v1/responses", json=asked), 409)["code"] == "container_in_use"
        error(await client.delete(f"/v1/containers/{container}"), 409)
        go_on.set()
        await task
        await respond(client, **tool(container))


async def test_files_go_in_and_come_out() -> None:
    async with app_of(SCRIPT) as app, client_of(app) as client:
        container = (await created(client))["id"]
        url = f"/v1/containers/{container}/files"
        assert (await client.get(url)).json()["data"] == []
        data = bytes(range(256)) * 10
        file = (await uploaded(client, container, "data/table é.csv", data)).json()
        parsed(FileCreateResponse, file)
        assert (file["path"], file["bytes"], file["source"]) == ("data/table é.csv", len(data), "user")
        assert (await client.get(f"{url}/{file['id']}")).json() == file
        content = await client.get(f"{url}/{file['id']}/content")
        assert content.content == data
        assert content.headers["content-disposition"].startswith("attachment")
        assert (content.headers["content-type"], content.headers["x-content-type-options"]) == (
            "application/octet-stream",
            "nosniff",
        )
        containers = state(app).containers
        assert containers is not None
        await containers.get("", container).session.write_file("made.txt", b"x")  # as code does
        found = {one["path"]: one for one in (await client.get(url)).json()["data"]}
        assert {path: one["source"] for path, one in found.items()} == {
            "data/table é.csv": "user",
            "made.txt": "assistant",
        }
        assert (await client.delete(f"{url}/{file['id']}")).json()["deleted"] is True
        for method in ("GET", "DELETE"):
            error(await client.request(method, f"{url}/{file['id']}"), 404)
        error(await client.get(f"{url}/{file['id']}/content"), 404)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", ".hidden", "a\\b", "x" * 600, "a/" * 9 + "x"])
async def test_names_that_are_tricks(name: str) -> None:
    async with app_of(SCRIPT) as app, client_of(app) as client:
        container = (await created(client))["id"]
        assert error(await uploaded(client, container, name, b"x"), 400)["code"] == "invalid_file_name"
        for trick in ("..%2f..%2fetc%2fpasswd", "%2e%2e", "cfile_%00", name[:50].replace("/", "%2F")):
            found = await client.get(f"/v1/containers/{container}/files/{trick}/content")
            assert found.status_code == 404


async def test_sizes_of_files_are_bounded() -> None:
    box = FakeSandbox(lambda code: "42", limits=Limits(file_bytes=100, files=2))
    async with app_of(SCRIPT, sandbox=box, max_body=5000) as app, client_of(app) as client:
        container = (await created(client))["id"]
        assert error(await uploaded(client, container, "a", b"x" * 101), 413)["code"] == "file_too_large"
        error(await uploaded(client, container, "a", b"x" * 6000), 413)
        for name in ("a", "b"):
            assert (await uploaded(client, container, name, b"x" * 100)).status_code == 200
        error(await uploaded(client, container, "c", b"x"), 400)


async def test_uploads_that_are_none() -> None:
    async with app_of(SCRIPT) as app, client_of(app) as client:
        container = (await created(client))["id"]
        url = f"/v1/containers/{container}/files"
        error(await client.post(url, json={"file_id": "file_1"}), 400)
        error(await client.post(url, data={"file": "text"}), 400)
        error(await client.post(url, files={"other": ("a", b"x")}), 400)
        answer = await client.post(url, files={"file": ("a", b"x")}, data={"file_id": "file_1"})
        assert error(answer, 400)["param"] == "file_id"
        error(await client.post(url, content=b"--x", headers={"Content-Type": "multipart/form-data; boundary=y"}), 400)
        error(await client.post(url, files=[("file", ("a", b"x")), ("file", ("b", b"y"))]), 400)


async def test_another_clients_containers_and_files() -> None:
    async with two_clients(SCRIPT) as (_, one, other):
        container = (await created(one))["id"]
        file = (await uploaded(one, container, "a", b"secret")).json()["id"]
        url = f"/v1/containers/{container}"
        for method, path in (
            ("GET", url),
            ("DELETE", url),
            ("GET", f"{url}/files"),
            ("GET", f"{url}/files/{file}"),
            ("GET", f"{url}/files/{file}/content"),
            ("DELETE", f"{url}/files/{file}"),
        ):
            assert error(await other.request(method, path), 404)["code"] == "container_not_found"
        assert error(await uploaded(other, container, "a", b"x"), 404)["code"] == "container_not_found"
        asked = {"model": "scripted", "input": "x", **tool(container)}
        assert error(await other.post("/v1/responses", json=asked), 404)["code"] == "container_not_found"
        assert (await other.get("/v1/containers")).json()["data"] == []
        foreign = (await created(other))["id"]
        error(await other.get(f"/v1/containers/{foreign}/files/{file}/content"), 404)
        assert (await one.get(f"{url}/files/{file}/content")).content == b"secret"
        # A cell of the one in the input of the other opens nothing of the one's.
        call = {"type": "code_interpreter_call", "container_id": container, "code": "x", "outputs": []}
        (ran,) = calls_of(await respond(other, [call, {"role": "user", "content": "x"}]))
        assert ran["container_id"] != container


async def test_figures_are_images_of_the_output() -> None:
    result = Result(Outcome.OK, stdout="42", images=(Image("image/png", b"\x89PNG"),))
    async with app_of(SCRIPT, sandbox=FakeSandbox(lambda code: result)) as app, client_of(app) as client:
        (call,) = calls_of(await respond(client))
        assert call["outputs"] == [
            {"type": "logs", "logs": "42"},
            {"type": "image", "url": "data:image/png;base64,iVBORw=="},
        ]


async def test_a_server_without_a_sandbox_has_no_containers() -> None:
    engine = ScriptedEngine(["</think>\\boxed{1}<|im_end|>"])
    app = create_app(Solver(engine, settings={"tools": False}), ServerOptions(model_name="scripted"), keys=Keys())
    async with app.router.lifespan_context(app), client_of(app) as client:
        error(await client.get("/v1/containers"), 404)
        assert (await respond(client))["tools"] == []
        error(await client.post("/v1/responses", json={"model": "scripted", "input": "x", "tools": [AUTO]}), 400)
