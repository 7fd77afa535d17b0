"""What all requests to a server share."""

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
        solver: the caller's, open.
        options: of the server.
        keys: of its clients.
        model: what clients call the model.
        instruction: a sentence that follows the last message of each conversation; none where empty.
        admission: lets rollouts run.
        metrics: what is counted.
        store: responses and conversations, open while the application serves.
        containers: kernels that outlive a response; None where there is no sandbox.
        active: the responses under way.
        jobs: the requests under way.
        started: when the server was made, in seconds since 1970.
        stopping: set when it stops: new requests are refused.
        latest: when the engine last wrote something, by ``time.monotonic``.
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
        """Refuse what is new, give what runs so many seconds, then end it with an error. Returns when all has ended."""
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
    """The answer to requests that a stopping server does not finish."""
    return APIError(503, "the server is shutting down", code="server_stopping", headers={"Retry-After": "5"})


def state_of(request: Request) -> State:
    """The server's state."""
    state = request.app.state.server
    assert isinstance(state, State)
    return state


def client_of(request: Request) -> str:
    """Who asks: a hash of the key; "" on a server without keys."""
    return str(request.state.client)
