"""The application around the routes: keys, sizes, hosts, health, metrics, the OpenAPI document."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any
from unittest import mock

import pytest

from sandbox import FakeSandbox, KernelStartError
from start_agent.engines.base import Engine
from start_agent.engines.scripted import ScriptedEngine
from start_agent.server.auth import Keys
from tests.support.apps import app_of, client_of, state
from tests.unit.server.test_jobs import BrokenEngine

SHAPE = {"message", "type", "param", "code"}


def error(response: Any, status: int) -> dict[str, Any]:
    """The error of a response, which has the shape of all errors."""
    assert response.status_code == status
    body = response.json()
    assert set(body) == {"error"} and set(body["error"]) == SHAPE
    assert "\n" not in body["error"]["message"]
    found: dict[str, Any] = body["error"]
    return found


async def test_the_model_is_listed() -> None:
    async with app_of([]) as app, client_of(app) as client:
        (model,) = (await client.get("/v1/models")).json()["data"]
        assert (model["id"], model["object"]) == ("scripted", "model")
        assert (await client.get("/v1/models/scripted")).json() == model
        assert error(await client.get("/v1/models/other"), 404)["code"] == "model_not_found"


async def test_what_is_not_there_is_said_in_the_same_shape() -> None:
    async with app_of([]) as app, client_of(app) as client:
        assert "/openapi.json" in error(await client.get("/v1/nothing"), 404)["message"]
        error(await client.post("/v1/models"), 405)
        elsewise = await client.put("/v1/conversations/x")
        error(elsewise, 405)
        assert set(elsewise.headers["Allow"].split(", ")) >= {"GET", "POST", "DELETE"}
        error(await client.get("/"), 404)


async def test_with_keys_the_api_needs_one_and_the_rest_does_not() -> None:
    async with app_of([], keys=Keys(["first-key"])) as app:
        async with client_of(app) as client:
            response = await client.get("/v1/models")
            assert error(response, 401)["code"] == "invalid_api_key" and response.headers["WWW-Authenticate"]
            error(await client.get("/v1/nothing"), 401)
            assert (await client.get("/metrics")).status_code == 200
            assert (await client.get("/openapi.json")).status_code == 200
        async with client_of(app, key="first-key") as client:
            assert (await client.get("/v1/models")).status_code == 200


async def test_every_answer_has_a_request_id() -> None:
    async with app_of([]) as app, client_of(app) as client:
        response = await client.get("/v1/models", headers={"X-Request-Id": "mine-1"})
        assert response.headers["X-Request-Id"] == "mine-1"
        forged = await client.get("/v1/nothing", headers={"X-Request-Id": "a b"})
        assert re.fullmatch("[0-9a-f]{32}", forged.headers["X-Request-Id"])


async def test_a_defect_is_a_500_that_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with app_of([]) as app, client_of(app) as client:
        with mock.patch.object(app.state.health, "report", side_effect=ZeroDivisionError("/secret/place")):
            response = await client.get("/health", headers={"X-Request-Id": "mine-1"})
    assert error(response, 500)["code"] == "internal_error" and "secret" not in response.text
    assert response.headers["X-Request-Id"] == "mine-1"
    assert "mine-1" in caplog.text and "ZeroDivisionError" in caplog.text


async def test_a_body_has_a_size() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b" " * 600

    async with app_of([], max_body=1024) as app, client_of(app) as client:
        error(await client.post("/v1/models", content=b" " * 1025), 413)
        assert (await client.post("/v1/models", content=pieces())).status_code == 405  # never read


async def test_hosts_that_are_not_ours() -> None:
    async with app_of([], allowed_hosts=["localhost", "[::1]"]) as app, client_of(app) as client:
        for host, status in (("localhost:80", 200), ("[::1]:8000", 200), ("LOCALHOST", 200), ("evil.example", 403)):
            response = await client.get("/v1/models", headers={"Host": host})
            assert response.status_code == status, host


async def test_pages_of_other_origins_only_where_they_are_allowed() -> None:
    asked = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
    async with app_of([], cors=["https://page.example"], keys=Keys(["first-key"])) as app, client_of(app) as client:
        response = await client.options("/v1/models", headers=asked)
        assert response.headers["Access-Control-Allow-Origin"] == "https://page.example"
        refused = await client.get("/v1/models", headers=asked)
        assert refused.status_code == 401 and "Access-Control-Allow-Origin" in refused.headers
    async with app_of([]) as app, client_of(app) as client:
        assert "Access-Control-Allow-Origin" not in (await client.get("/v1/models", headers=asked)).headers


async def test_health_asks_the_engine_and_the_sandbox() -> None:
    engine, box = ScriptedEngine(["1"]), FakeSandbox({"1 + 1": "2"})
    async with app_of(engine, sandbox=box) as app, client_of(app) as client:
        responses = await asyncio.gather(*(client.get("/health") for _ in range(5)))
        assert {response.status_code for response in responses} == {200}
        assert responses[0].json() == {"status": "ok", "engine": "ok", "sandbox": "ok"}
        assert len(engine.requests) == 1 and engine.requests[0].max_tokens == 1 and len(box.codes) == 1
        assert len(engine.released) == 1


class DeadEngine(ScriptedEngine):
    @property
    def failure(self) -> str | None:
        return "it died"


@pytest.mark.parametrize(
    ("engine", "faults", "report"),
    [
        (BrokenEngine([]), 0, {"engine": "failed", "sandbox": "ok"}),
        (DeadEngine([]), 0, {"engine": "dead", "sandbox": "ok"}),
        (ScriptedEngine(["1"]), 1, {"engine": "ok", "sandbox": "failed"}),
    ],
)
async def test_what_does_not_work_is_unhealthy(engine: Engine, faults: int, report: dict[str, str]) -> None:
    box = FakeSandbox({"1 + 1": "2"})
    box.fail_next(KernelStartError("no room"), faults)
    async with app_of(engine, sandbox=box) as app, client_of(app) as client:
        response = await client.get("/health")
        assert response.status_code == 503
        assert response.json() == {"status": "unhealthy", **report}


async def test_a_stopping_server_is_not_healthy() -> None:
    async with app_of(["1"]) as app, client_of(app) as client:
        await state(app).drain(0)
        assert (await client.get("/health")).json()["status"] == "stopping"


async def test_the_document_has_our_errors_and_no_others() -> None:
    async with app_of([], keys=Keys(["first-key"])) as app, client_of(app) as client:
        document = (await client.get("/openapi.json")).json()
    responses = document["paths"]["/v1/models"]["get"]["responses"]
    assert {"200", "4XX", "5XX"} == set(responses)
    schemas = document["components"]["schemas"]
    assert "HTTPValidationError" not in schemas
    assert schemas["ChatRequest"]["properties"]["model"]["enum"] == ["scripted"]
    assert document["components"]["securitySchemes"]
