"""Health: probes whether the engine generates tokens and the sandbox runs code."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable

from sandbox import BaseSandbox, SandboxError
from start_agent.decoding.settings import DecodingSettings
from start_agent.decoding.solver import Solver
from start_agent.errors import StartAgentError, first_line
from start_agent.server.state import State
from start_agent.tokens.prompts import Prompt

logger = logging.getLogger(__name__)

_FRESH_SECONDS = 5.0  # how long a result is reused
_PROBE_SECONDS = 10.0  # timeout

OK = "ok"


class Health:
    """Checks a server's engine and sandbox.

    Args:
        state: the server's state.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._lock = asyncio.Lock()
        self._asked = float("-inf")
        self._found: dict[str, str] = {}

    async def report(self) -> tuple[bool, dict[str, str]]:
        """Whether the server is healthy, and the state of each part. Results are reused for some seconds."""
        async with self._lock:
            if time.monotonic() - self._asked > _FRESH_SECONDS:
                engine, box = await asyncio.gather(self._engine(), self._sandbox())
                self._found = {"engine": engine, "sandbox": box}
                self._asked = time.monotonic()
        stopping = self._state.stopping.is_set()
        well = not stopping and all(word in (OK, "off") for word in self._found.values())
        return well, {"status": OK if well else "stopping" if stopping else "unhealthy", **self._found}

    async def _engine(self) -> str:
        if self._state.solver.engine.failure is not None:
            return "dead"
        if time.monotonic() - self._state.latest < _FRESH_SECONDS:
            return OK  # it is generating
        return await _asked("engine", probe_engine(self._state.solver))

    async def _sandbox(self) -> str:
        box = self._state.solver.sandbox
        if box is None:
            return "off"
        if box.stats.waiting:
            return OK  # all kernels are in use: a probe would also wait
        return await _asked("sandbox", probe_sandbox(box))


async def _asked(what: str, probe: Awaitable[None]) -> str:
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            await probe
    except TimeoutError:
        return "no answer"
    except (StartAgentError, SandboxError) as error:
        logger.error("health: the %s failed: %s", what, first_line(error))
        return "failed"
    return OK


async def probe_engine(solver: Solver) -> None:
    """Generate one token. Raises ``EngineError``."""
    ids = tuple(solver.engine.tokenizer.encode("1 + 1 ="))
    probe = solver.changed(settings=DecodingSettings(hints=False, tools=False, max_tokens=1))
    await probe.solve(prompt=Prompt(ids, thinking=False), seed=None)


async def probe_sandbox(box: BaseSandbox) -> None:
    """Run a cell in a new kernel. Raises ``SandboxError``."""
    async with box.session() as session:
        await session.execute("1 + 1")
