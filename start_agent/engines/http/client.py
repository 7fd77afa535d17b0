"""Requests to a server that may be away for a while: JSON in, JSON or a stream of events out.

Two kinds of failure pass: a server that is **away** (it cannot be reached, it breaks off, it answers that it is still
loading or overloaded), for which ``--server-wait`` seconds are waited, and an **error** within it (HTTP 500), which is
tried again ``--http-retries`` times. Pauses double; a server that says how long (``Retry-After``) is obeyed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import re
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from start_agent.engines.http.options import HTTPOptions
from start_agent.errors import ConfigError, EngineError, MissingExtraError, first_line

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
logger = logging.getLogger(__name__)

API_KEY = "START_AGENT_API_KEY"
"""The environment variable that holds the server's key; it is sent to the server and nowhere else."""

_LONGEST_PAUSE = 10.0  # so that a server that is back is found soon
_LOADING = frozenset((502, 503, 504))  # of a proxy before a server that starts, or of the server itself


class RefusedError(EngineError):
    """The server answered that it will not do this: a 4xx."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class FailureKind(StrEnum):
    """Which of the failures that pass it is."""

    AWAY = "away"
    BUSY = "busy"
    ERROR = "error"


class Failure(Exception):  # noqa: N818 - none that leaves the engine: it becomes an EngineError when patience ends
    """What another try may get over. ``pause`` is how long the server asks to be left alone, in seconds."""

    def __init__(self, kind: FailureKind, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.kind, self.pause = kind, pause


class Client:
    """The connections to one server. Use it in ``async with``.

    Raises, on construction:
        MissingExtraError: httpx or httpx-sse is not installed.
        ConfigError: the address is none, the key cannot be one, or the certificates cannot be read.
    """

    def __init__(self, base_url: str, options: HTTPOptions) -> None:
        try:
            import httpx
            import httpx_sse  # noqa: F401 - needed later, missed now
        except ImportError as error:
            raise MissingExtraError(error.name or "httpx", "http") from error
        self.options, self.url = options, address(base_url)
        key = api_key()
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(options.read_timeout, connect=options.connect_timeout, pool=None),
            limits=httpx.Limits(
                max_connections=options.max_connections, max_keepalive_connections=options.max_connections
            ),
            verify=certificates(options),
        )
        self._away_since: float | None = None

    async def close(self) -> None:
        """Close the connections; streams under way fail."""
        await self._http.aclose()

    async def get(self, path: str, **query: str) -> Any:
        """The JSON at a path. Raises ``Failure``, and ``EngineError`` for what will not pass."""
        return await self._json("GET", path, params=query)

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON that answers a body; raises as ``get`` does."""
        return await self._json("POST", path, json=body)

    async def events(self, path: str, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The JSON objects of a stream of server-sent events, up to ``[DONE]`` where there is one.

        Closing the iterator closes the connection, which makes the server cancel the request. Raises as ``get``.
        """
        import httpx
        from httpx_sse import SSEError, aconnect_sse

        try:
            async with aconnect_sse(self._http, "POST", path, json=body) as source:
                await self._check(source.response)
                async with aclosing(source.aiter_sse()) as items:
                    async for item in items:
                        if item.data.strip() == "[DONE]":
                            return
                        if item.data:
                            yield self._event(item.data)
        except SSEError as error:
            raise EngineError(f"{self.url}{path} does not answer with a stream of events") from error
        except httpx.TransportError as error:
            raise self._failure(error) from error

    async def patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do it until it is done, or patience ends."""
        patience = Patience(self)
        while True:
            try:
                return await work()
            except Failure as failure:
                await patience.wait(failure)

    def away(self, failure: Failure) -> None:
        """Note that the server is away; said once until it answers again."""
        if self._away_since is None:
            self._away_since = time.monotonic()
            logger.warning(
                "waiting for the server at %s, for up to %g s (--server-wait): %s",
                self.url,
                self.options.server_wait,
                failure,
            )

    async def _json(self, method: str, path: str, **content: Any) -> Any:
        import httpx

        try:
            response = await self._http.request(method, path, **content)
        except httpx.TransportError as error:
            raise self._failure(error) from error
        await self._check(response)
        try:
            return response.json()
        except ValueError as error:
            raise EngineError(f"{self.url}{path} does not answer with JSON") from error

    def _event(self, data: str) -> dict[str, Any]:
        try:
            event = json.loads(data)
            error = event.get("error")
        except (ValueError, AttributeError) as problem:
            raise EngineError(f"{self.url} answers with something that is no completion") from problem
        if error:
            message, code = (error.get("message"), error.get("code")) if isinstance(error, dict) else (error, 500)
            text = " ".join(str(message or error).split())[:300]
            if isinstance(code, int) and code < 500 and code != 429:
                raise RefusedError(f"the server refused a turn: {text}", code)
            raise Failure(FailureKind.ERROR, f"the server at {self.url} failed: {text}")
        found: dict[str, Any] = event
        return found

    async def _check(self, response: httpx.Response) -> None:
        """Raise what a status means."""
        status = response.status_code
        if status < 300:
            if self._away_since is not None:
                seconds, self._away_since = time.monotonic() - self._away_since, None
                logger.warning("the server at %s answers again, after %.0f s", self.url, seconds)
            return
        await response.aread()
        said = f"the server at {self.url} answered {status}: {_message(response)}"
        if status in _LOADING:
            raise Failure(FailureKind.AWAY, said, _pause(response))
        if status == 429:
            raise Failure(FailureKind.BUSY, said, _pause(response))
        if status >= 500:
            raise Failure(FailureKind.ERROR, said, _pause(response))
        if status in (401, 407):
            raise ConfigError(f"the server at {self.url} wants another key: set {API_KEY} in the environment")
        if status == 403:
            said += f" (a key goes into {API_KEY})"
        raise RefusedError(said, status)

    def _failure(self, error: httpx.TransportError) -> Exception:
        """A connection that fails or breaks."""
        if self._http.is_closed:
            return EngineError("the engine failed: it was closed")
        if _caused_by(error, ssl.SSLCertVerificationError):
            return ConfigError(
                f"the certificate of {self.url} is not trusted ({first_line(error)}): "
                "name the file of its authority with --ca-file"
            )
        named = first_line(error) if str(error).strip() else type(error).__name__
        return Failure(FailureKind.AWAY, named)


class Patience:
    """How long one piece of work may go on failing."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._since: float | None = None
        self._tries = self._errors = 0

    def progress(self) -> None:
        """It got on: what failed before does not count any more."""
        self._since, self._tries, self._errors = None, 0, 0

    async def wait(self, failure: Failure) -> None:
        """Pause before the next try. Raises ``EngineError`` where there is to be none."""
        options, now = self._client.options, time.monotonic()
        self._since = now if self._since is None else self._since
        left = self._since + options.server_wait - now
        if failure.kind is FailureKind.ERROR:
            self._errors += 1
            if self._errors > options.http_retries:
                raise EngineError(f"{failure}; tried {self._errors} times (--http-retries)") from failure
            left = options.server_wait
        elif left <= 0:
            raise EngineError(
                f"{failure}; the server at {self._client.url} was waited for {options.server_wait:g} s (--server-wait)"
            ) from failure
        if failure.kind is FailureKind.AWAY:
            self._client.away(failure)
        # A part is left to chance, so that many turns do not come back at once.
        pause = min(_LONGEST_PAUSE, options.retry_pause * 2**self._tries * random.uniform(0.5, 1.0))
        self._tries += 1
        await asyncio.sleep(min(max(pause, failure.pause), left))


def address(base_url: str) -> str:
    """The address without its ``/v1``.

    Raises:
        ConfigError: it is none, or holds what does not belong there. A password in it is not shown.
    """
    import httpx

    if "@" in base_url or "?" in base_url or "#" in base_url:
        raise ConfigError(f"--base-url: nothing but an address belongs there; a key goes into {API_KEY}")
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise ConfigError(f"--base-url: {first_line(error)}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(f"--base-url: {base_url!r} is no address such as http://localhost:8000/v1")
    return base_url.rstrip("/").removesuffix("/v1")


def api_key() -> str | None:
    """The server's key, from the environment. Raises ``ConfigError``, without showing it, where it cannot be one."""
    key = os.environ.get(API_KEY)
    if key and not (key.isascii() and key.isprintable() and key == key.strip()):
        raise ConfigError(
            f"the key in {API_KEY} begins or ends with a blank, or holds a line break or a character "
            "that is not ASCII: set it to the key alone"
        )
    return key or None


def certificates(options: HTTPOptions) -> ssl.SSLContext:
    """Who is trusted: the usual authorities or those of SSL_CERT_FILE or SSL_CERT_DIR, and the user's file.

    Raises:
        ConfigError: a file that is not there, or holds no certificates.
    """
    import httpx

    source = "SSL_CERT_FILE or SSL_CERT_DIR"
    try:
        context = httpx.create_ssl_context()
        if options.ca_file is not None:
            source = f"--ca-file {options.ca_file}"
            context.load_verify_locations(options.ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"{source}: cannot read the certificates: {error.strerror or first_line(error)}") from error
    return context


def _caused_by(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None:
        if isinstance(error, kind):
            return True
        error = error.__cause__ or error.__context__
    return False


def _message(response: httpx.Response) -> str:
    """What the server says of its refusal, in one line."""
    try:
        body = response.json()
        text = str(body.get("error", body).get("message", body))
    except (ValueError, AttributeError):
        text = response.text or response.reason_phrase
    return " ".join(text.split())[:300]


def _pause(response: httpx.Response) -> float:
    """``Retry-After`` in seconds: a number, or a date (RFC 9110, 10.2.3); 0 where there is none."""
    said = response.headers.get("retry-after", "")
    if re.fullmatch(r"\d+(\.\d*)?", said):
        return float(said)
    try:
        until = parsedate_to_datetime(said)
    except ValueError:
        return 0.0
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
