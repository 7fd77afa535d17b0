"""The ASGI application: routes, middleware and lifespan."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.security import HTTPBearer

from sandbox import BaseSandbox
from start_agent import __version__
from start_agent.decoding.solver import Solver
from start_agent.server import (
    chat,
    completions,
    container_routes,
    conversation_routes,
    response_routes,
    service_routes,
)
from start_agent.server.admission import Admission
from start_agent.server.auth import Keys, read_keys
from start_agent.server.containers import Containers
from start_agent.server.errors import add_handlers
from start_agent.server.gate import Gate
from start_agent.server.health import Health
from start_agent.server.metrics import Metrics
from start_agent.server.options import ServerOptions
from start_agent.server.response_run import ActiveResponses
from start_agent.server.state import State
from start_agent.server.store import Store

_API_ROUTERS = (
    service_routes.models,
    chat.router,
    completions.router,
    response_routes.router,
    conversation_routes.router,
    container_routes.router,
)
"""The routes under ``/v1``, which need a key if the server has keys."""


def create_app(
    solver: Solver, options: ServerOptions | None = None, *, instruction: str = "", keys: Keys | None = None
) -> FastAPI:
    """Create an application that answers requests with a solver's rollouts.

    Args:
        solver: an open solver; the caller keeps it open while the application serves.
        options: the server's options; host and port are not used.
        instruction: a sentence after the last message of each conversation.
        keys: the clients' keys; by default read from the options and the environment.

    Raises:
        ConfigError: the keys cannot be read.
    """
    options = options or ServerOptions()
    keys = read_keys(options.api_key_file) if keys is None else keys
    model = options.model_name or served_name(solver.engine.model)
    admission = Admission(options.max_requests, options.queue)
    state = State(
        solver=solver,
        options=options,
        keys=keys,
        model=model,
        instruction=instruction,
        admission=admission,
        metrics=Metrics(admission, solver.sandbox, model),
        store=Store(options.state),
        containers=_containers(solver.sandbox, options),
        active=ActiveResponses(),
    )
    app = FastAPI(
        title="start-agent",
        version=__version__,
        description="Tool-integrated reasoning with OpenAI's API.",
        lifespan=_lifespan,
        docs_url=None,  # their pages load scripts from other hosts
        redoc_url=None,
    )
    app.state.server, app.state.health = state, Health(state)
    add_handlers(app)
    bearer = Depends(HTTPBearer(auto_error=False)) if keys else None
    for router in _API_ROUTERS:
        app.include_router(router, prefix="/v1", dependencies=[bearer] if bearer else [])
    app.include_router(service_routes.service)
    app.add_middleware(Gate, state=state)
    if options.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=options.cors,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["X-Request-Id", "Retry-After"],
        )
    document = app.openapi

    def openapi() -> dict[str, Any]:
        return _as_it_is(document(), model)

    app.openapi = openapi  # type: ignore[method-assign]
    return app


def served_name(model: str) -> str:
    """The model's name for clients: for a folder its name, not its path."""
    path = Path(model).expanduser()
    return path.resolve().name if path.exists() else model


def _containers(sandbox: BaseSandbox | None, options: ServerOptions) -> Containers | None:
    """Containers, limited so that running requests have kernels: at least half of a small sandbox."""
    if sandbox is None:
        return None
    room = sandbox.size - options.max_requests
    limit = min(options.containers, room if room > 0 else sandbox.size // 2)
    return Containers(sandbox, limit=limit, ttl=options.container_ttl)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
    state: State = app.state.server
    async with state.store, AsyncExitStack() as stack:
        if state.containers is not None:
            stack.push_async_callback(state.containers.close)
            sweeping = asyncio.create_task(state.containers.sweep_always(), name="containers")
            stack.callback(sweeping.cancel)
        stack.push_async_callback(state.drain, 0)
        yield


def _as_it_is(document: dict[str, Any], model: str) -> dict[str, Any]:
    """Correct the OpenAPI document: invalid requests are a 400, not 422, and there is one model."""
    for path in document["paths"].values():
        for operation in path.values():
            operation.get("responses", {}).pop("422", None)
    schemas = document.get("components", {}).get("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for name in ("ChatRequest", "CompletionRequest", "ResponsesRequest"):
        schemas[name]["properties"]["model"]["enum"] = [model]
    return document
