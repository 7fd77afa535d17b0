"""Routes about the server: models, health, metrics."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from start_agent.server.ascii_json import JSONResponse
from start_agent.server.body import new_router
from start_agent.server.errors import ERRORS
from start_agent.server.health import Health
from start_agent.server.state import State, state_of

models = new_router()
service = APIRouter()


class Model(BaseModel):
    """A model in OpenAI's format; ``max_model_len`` is from vLLM."""

    id: str
    object: str = "model"
    created: int
    owned_by: str = "start-agent"
    max_model_len: int


class Models(BaseModel):
    """The list of models."""

    object: str = "list"
    data: list[Model]


@models.get("/models", responses=ERRORS)
async def list_models(request: Request) -> Models:
    """The served model."""
    return Models(data=[_model(state_of(request))])


@models.get("/models/{model:path}", responses=ERRORS)
async def get_model(request: Request, model: str) -> Model:
    """The served model, by its name."""
    state = state_of(request)
    state.check_model(model)
    return _model(state)


@service.get("/health", responses={503: {"description": "the engine or the sandbox fails, or the server stops"}})
async def health(request: Request) -> Response:
    """Whether the engine generates tokens and the sandbox runs code; both are probed, at most every few seconds."""
    checks = request.app.state.health
    assert isinstance(checks, Health)
    well, report = await checks.report()
    return JSONResponse(report, 200 if well else 503)


@service.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Counts and latencies in Prometheus' format."""
    return Response(state_of(request).metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _model(state: State) -> Model:
    return Model(id=state.model, created=state.started, max_model_len=state.solver.engine.context_length)
