"""Opens a solver and serves it until a signal arrives or its engine dies."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import Callable, Generator
from dataclasses import replace
from enum import Enum
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from sandbox import most_kernels
from start_agent.build import SolverConfig, open_solver
from start_agent.errors import ConfigError
from start_agent.server.app import create_app, served_name
from start_agent.server.auth import read_keys
from start_agent.server.options import ServerOptions
from start_agent.server.state import State
from start_agent.server.store import Store

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_HEADER_BYTES = 64 << 10
_HEADER_SECONDS = 30  # timeout for a request's headers
_LINGER_SECONDS = 5  # after the response, for a client that is still sending its request to read it
_WATCH_SECONDS = 0.5  # interval of checks whether the engine is alive
_LAST_SECONDS = 5  # after the grace time, for cancelled requests to end


class End(Enum):
    """Why a server ended."""

    STOPPED = "stopped"
    """By a signal."""
    ENGINE_DIED = "engine died"


def new_event_loop() -> asyncio.AbstractEventLoop:
    """An event loop of uvloop, which is faster with many streams; where it is not installed, one of asyncio's."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


async def serve(
    config: SolverConfig, options: ServerOptions, *, on_notice: Callable[[str], None] = lambda line: None
) -> End:
    """Serve until SIGTERM or SIGINT, or the engine dies. A second signal does not wait for running requests.

    Args:
        config: options of the solver.
        options: options of the server.
        on_notice: receives each line to show the operator.

    Raises:
        ConfigError: the address or the state file cannot be used, or an option is invalid.
        InputError, HintError, EngineError, SandboxError: as ``build.open_solver``.
    """
    keys = read_keys(options.api_key_file)
    with _bound(options.host, options.port) as listener:
        loopback = listener.getsockname()[0] in ("127.0.0.1", "::1")
        if loopback and not keys and not options.allowed_hosts:
            options = options.model_copy(update={"allowed_hosts": _LOOPBACK})
        if not loopback and not keys:
            on_notice("there are no API keys: anyone who can reach this address may use the server (--api-key-file)")
        async with Store(options.state):  # fail before the model is loaded
            pass
        if options.model_name is None:
            options = options.model_copy(update={"model_name": served_name(config.solve.model)})
        sessions = min(options.max_requests + options.containers, most_kernels())
        seedless = replace(config, solve=config.solve.model_copy(update={"seed": None}))
        async with open_solver(seedless, sessions=sessions, on_notice=on_notice) as solver:
            app = create_app(solver, options, instruction=config.solve.instruction or "", keys=keys)
            server = _Server(
                uvicorn.Config(
                    app,
                    http=_Protocol,
                    ws="none",
                    lifespan="on",
                    log_config=None,
                    server_header=False,
                    h11_max_incomplete_event_size=_HEADER_BYTES,
                    timeout_graceful_shutdown=int(options.timeout_graceful_shutdown) + _LAST_SECONDS,
                ),
                app.state.server,
                lambda: on_notice(f"serving {options.model_name} at {_url(listener)}/v1"),
            )
            await server.serve(sockets=[listener])
            return server.end


@contextlib.contextmanager
def _bound(host: str, port: int) -> Generator[socket.socket, None, None]:
    """Bind a socket to this address without listening, to fail before the model is loaded."""
    with contextlib.ExitStack() as stack:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, _, _, _, address = found[0]
            listener = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError as error:
            raise ConfigError(f"cannot listen on {host}, port {port}: {error.strerror or error}") from error
        yield listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """uvicorn's server, with signals that first drain the application, and a check of the engine."""

    def __init__(self, config: uvicorn.Config, state: State, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self.end = End.STOPPED
        self._state, self._on_start = state, on_start
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """See ``uvicorn.Server``."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        self._spawn(self._watch())
        try:
            await super().serve(sockets)
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            gc.unfreeze()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See ``uvicorn.Server``: afterwards, connections are accepted."""
        # As vLLM does: what is there now stays, and a collection that looks at all of it stops everything for 0.2 s.
        gc.collect()
        gc.freeze()
        await super().startup(sockets)
        self._on_start()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Do nothing: ``serve`` handles signals."""
        yield

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _stop(self) -> None:
        again = self.should_exit
        self.should_exit = True
        self._spawn(self._state.drain(0 if again else self._state.options.timeout_graceful_shutdown))

    async def _watch(self) -> None:
        while self._state.solver.engine.failure is None:  # noqa: ASYNC110 - engines have no event for their death
            await asyncio.sleep(_WATCH_SECONDS)
        self.end = End.ENGINE_DIED
        self.should_exit = True
        await self._state.drain(0)


class _Protocol(H11Protocol):
    """uvicorn's protocol, with a timeout for request headers besides their size limit."""

    _head: asyncio.TimerHandle | None = None
    _linger: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See ``asyncio.Protocol``."""
        super().connection_made(transport)
        self._head = self.loop.call_later(_HEADER_SECONDS, self._give_up)

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._forget()
        elif self._head is None:
            self._head = self.loop.call_later(_HEADER_SECONDS, self._give_up)

    def on_response_complete(self) -> None:
        """See ``H11Protocol``. An unread body, as after 413, may be endless."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._linger = self.loop.call_later(_LINGER_SECONDS, self._end_lingering, self.cycle)

    def _end_lingering(self, cycle: RequestResponseCycle) -> None:
        if self.cycle is cycle and self.conn.their_state is h11.SEND_BODY:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``asyncio.Protocol``."""
        self._forget()
        if self._linger is not None:
            self._linger.cancel()
        super().connection_lost(exc)

    def _forget(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _give_up(self) -> None:
        self._head = None
        if self.conn.their_state is h11.IDLE:
            self.transport.close()
