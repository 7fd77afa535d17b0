"""The server's application over test doubles, called in this process or over loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from sandbox import BaseSandbox, FakeSandbox
from start_agent.decoding.solver import Solver
from start_agent.engines.base import Engine
from start_agent.engines.scripted import Script, ScriptedEngine
from start_agent.server.app import create_app
from start_agent.server.auth import Keys
from start_agent.server.options import ServerOptions
from start_agent.server.state import State


@asynccontextmanager
async def app_of(
    script: Script | Engine,
    *,
    sandbox: BaseSandbox | None = None,
    settings: dict[str, Any] | None = None,
    keys: Keys | None = None,
    instruction: str = "",
    **options: Any,
) -> AsyncGenerator[FastAPI, None]:
    """An application over a scripted engine and a sandbox where every cell prints 42; its lifespan is entered."""
    engine = script if isinstance(script, Engine) else ScriptedEngine(script)
    async with sandbox or FakeSandbox(lambda code: "42") as box, engine:
        solver = Solver(engine, box, settings={"hint_probability": 0, **(settings or {})})
        options.setdefault("model_name", "scripted")
        app = create_app(solver, ServerOptions(**options), keys=keys or Keys(), instruction=instruction)
        async with app.router.lifespan_context(app):
            yield app


def state(app: FastAPI) -> State:
    """The state of an application."""
    found = app.state.server
    assert isinstance(found, State)
    return found


def client_of(app: FastAPI, *, key: str = "") -> httpx.AsyncClient:
    """A client that calls the application in this process; answers come when they are complete."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", headers=headers)


@asynccontextmanager
async def listening(app: FastAPI) -> AsyncGenerator[str, None]:
    """The address of a server of the application on loopback, in this loop."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, log_config=None, lifespan="off", ws="none", timeout_graceful_shutdown=5)
        server = uvicorn.Server(config)
        task = asyncio.create_task(server._serve([listener]))  # without its signal handlers
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task
