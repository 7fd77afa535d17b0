"""The state that all requests to a server share."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastapi import Request

from start_agent.decoding.solver import Solver
from start_agent.server.admission import Admission
from start_agent.server.auth import Keys
from start_agent.server.errors import APIError
from start_agent.server.metrics import Metrics
from start_agent.server.options import ServerOptions

if TYPE_CHECKING:
    from start_agent.server.containers import Containers
    from start_agent.server.jobs import Job
    from start_agent.server.response_run import ActiveResponses
    from start_agent.server.store import Store


@dataclass(slots=True, eq=False)
class State:
    """A running server.

    Attributes:
        solver: an open solver, owned by the caller.
        options: the server's options.
        keys: the clients' keys.
        model: the model's name for clients.
        instruction: a sentence after the last message of each conversation; none if empty.
        admission: the queue of rollouts.
        metrics: the metrics.
        store: responses and conversations, open while the application serves.
        containers: kernels that outlive a response; None without a sandbox.
        active: running responses.
        jobs: running jobs.
        started: start time in seconds since 1970.
        stopping: set on shutdown: new requests are refused.
        latest: when the engine last generated a token, by ``time.monotonic``.
    """

    solver: Solver
    options: ServerOptions
    keys: Keys
    model: str
    instruction: str
    admission: Admission
    metrics: Metrics
    store: Store
    containers: Containers | None
    active: ActiveResponses
    jobs: set[Job] = field(default_factory=set)
    started: int = field(default_factory=lambda: int(time.time()))
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    latest: float = float("-inf")

    def check_model(self, name: str) -> None:
        """Refuse a request for another model. Raises ``APIError``, 404."""
        if name != self.model:
            raise APIError(
                404,
                f"there is no model {name!r:.100}: this server has {self.model!r}",
                param="model",
                code="model_not_found",
            )

    async def drain(self, grace: float) -> None:
        """Refuse new requests, give running ones ``grace`` seconds, then end them with an error. Waits for all."""
        self.stopping.set()
        for job in [job for job in self.jobs if not job.admitted]:
            job.fail(shutting_down())
        running = [job.ended.wait() for job in self.jobs]
        if running:
            await asyncio.wait([asyncio.ensure_future(wait) for wait in running], timeout=grace)
        for job in list(self.jobs):
            job.fail(shutting_down())
        while self.jobs:
            await next(iter(self.jobs)).ended.wait()


def shutting_down() -> APIError:
    """The error for requests that a stopping server does not finish."""
    return APIError(503, "the server is shutting down", code="server_stopping", headers={"Retry-After": "5"})


def state_of(request: Request) -> State:
    """The server's state."""
    state = request.app.state.server
    assert isinstance(state, State)
    return state


def client_of(request: Request) -> str:
    """The client of a request: a hash of its key; "" on a server without keys."""
    return str(request.state.client)
