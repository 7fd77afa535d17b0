"""An HTTP client for JSON and event streams that retries while a server is temporarily unavailable.

Two kinds of failure are temporary: a server that is **away** (it cannot be reached, breaks off, or answers that it is
loading or overloaded) is retried for ``--server-wait`` seconds, and an internal **error** (HTTP 500) is retried
``--http-retries`` times. The pause doubles with each retry, and is at least the server's ``Retry-After``.
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
"""The environment variable with the server's key, which is sent only to the server."""

_LONGEST_PAUSE = 10.0  # seconds, so that a server that is available again is noticed soon
_LOADING = frozenset((502, 503, 504))  # from a proxy in front of a server that is starting, or from the server itself


class RefusedError(EngineError):
    """The server rejected a request with a status 4xx."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class FailureKind(StrEnum):
    """The kind of a temporary failure."""

    AWAY = "away"
    BUSY = "busy"
    ERROR = "error"


class Failure(Exception):  # noqa: N818 - never leaves the engine: it becomes an EngineError when retries end
    """A temporary failure. ``pause`` is the time that the server asks to wait before the next request, in seconds."""

    def __init__(self, kind: FailureKind, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.kind, self.pause = kind, pause


class Client:
    """The connections to one server. Use it in ``async with``.

    Raises, on construction:
        MissingExtraError: httpx or httpx-sse is not installed.
        ConfigError: the URL or the key is invalid, or the certificates cannot be read.
    """

    def __init__(self, base_url: str, options: HTTPOptions) -> None:
        try:
            import httpx
            import httpx_sse  # noqa: F401 - needed later, but reported now if it is missing
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
        """Close the connections; open streams fail."""
        await self._http.aclose()

    async def get(self, path: str, **query: str) -> Any:
        """GET the JSON at a path. Raises ``Failure``, and ``EngineError`` for permanent failures."""
        return await self._json("GET", path, params=query)

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """POST a JSON body; returns the JSON response. Raises as ``get`` does."""
        return await self._json("POST", path, json=body)

    async def events(self, path: str, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The JSON objects of a stream of server-sent events, up to an optional ``[DONE]``.

        Closing the iterator closes the connection, which makes the server cancel the request. Raises as ``get`` does.
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
            raise EngineError(f"{self.url}{path} did not return a stream of events") from error
        except httpx.TransportError as error:
            raise self._failure(error) from error

    async def with_retries(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run a function, and repeat it after temporary failures as long as the options allow."""
        retries = Retries(self)
        while True:
            try:
                return await work()
            except Failure as failure:
                await retries.wait(failure)

    def away(self, failure: Failure) -> None:
        """Record that the server is away; logged once until it answers again."""
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
            raise EngineError(f"{self.url}{path} did not return JSON") from error

    def _event(self, data: str) -> dict[str, Any]:
        try:
            event = json.loads(data)
            error = event.get("error")
        except (ValueError, AttributeError) as problem:
            raise EngineError(f"{self.url} returned an event that is not a completion") from problem
        if error:
            message, code = (error.get("message"), error.get("code")) if isinstance(error, dict) else (error, 500)
            text = " ".join(str(message or error).split())[:300]
            if isinstance(code, int) and code < 500 and code != 429:
                raise RefusedError(f"the server rejected a turn: {text}", code)
            raise Failure(FailureKind.ERROR, f"the server at {self.url} failed: {text}")
        found: dict[str, Any] = event
        return found

    async def _check(self, response: httpx.Response) -> None:
        """Raise the error for the status of a response."""
        status = response.status_code
        if status < 300:
            if self._away_since is not None:
                seconds, self._away_since = time.monotonic() - self._away_since, None
                logger.warning("the server at %s answers again, after %.0f s", self.url, seconds)
            return
        await response.aread()
        message = f"the server at {self.url} answered {status}: {_message(response)}"
        if status in _LOADING:
            raise Failure(FailureKind.AWAY, message, _pause(response))
        if status == 429:
            raise Failure(FailureKind.BUSY, message, _pause(response))
        if status >= 500:
            raise Failure(FailureKind.ERROR, message, _pause(response))
        if status in (401, 407):
            raise ConfigError(f"the server at {self.url} rejects the key; set {API_KEY} in the environment")
        if status == 403:
            message += f" (set a key in {API_KEY})"
        raise RefusedError(message, status)

    def _failure(self, error: httpx.TransportError) -> Exception:
        """The exception for a connection that fails or breaks."""
        if self._http.is_closed:
            return EngineError("the engine failed: it was closed")
        if _caused_by(error, ssl.SSLCertVerificationError):
            return ConfigError(
                f"the certificate of {self.url} is not trusted ({first_line(error)}); "
                "use --ca-file with the certificate of its authority"
            )
        reason = first_line(error) if str(error).strip() else type(error).__name__
        return Failure(FailureKind.AWAY, reason)


class Retries:
    """The failures of one operation since its last progress."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._since: float | None = None
        self._tries = self._errors = 0

    def progress(self) -> None:
        """Reset after progress: earlier failures no longer count."""
        self._since, self._tries, self._errors = None, 0, 0

    async def wait(self, failure: Failure) -> None:
        """Pause before the next attempt. Raises ``EngineError`` if there is none left."""
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
                f"{failure}; waited {options.server_wait:g} s for the server at {self._client.url} (--server-wait)"
            ) from failure
        if failure.kind is FailureKind.AWAY:
            self._client.away(failure)
        # With jitter, so that many turns do not retry at the same time.
        pause = min(_LONGEST_PAUSE, options.retry_pause * 2**self._tries * random.uniform(0.5, 1.0))
        self._tries += 1
        await asyncio.sleep(min(max(pause, failure.pause), left))


def address(base_url: str) -> str:
    """The URL without ``/v1``.

    Raises:
        ConfigError: it is not a URL, or has a user, a query or a fragment. A password in it is not shown.
    """
    import httpx

    if "@" in base_url or "?" in base_url or "#" in base_url:
        raise ConfigError(f"--base-url: give only the address of the server; set a key in {API_KEY}")
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise ConfigError(f"--base-url: {first_line(error)}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(f"--base-url: {base_url!r} is not a URL like http://localhost:8000/v1")
    return base_url.rstrip("/").removesuffix("/v1")


def api_key() -> str | None:
    """The server's key from the environment. Raises ``ConfigError``, without showing it, if it is not valid."""
    key = os.environ.get(API_KEY)
    if key and not (key.isascii() and key.isprintable() and key == key.strip()):
        raise ConfigError(
            f"the key in {API_KEY} has white space around it, a line break or a character that is not ASCII; "
            "set it to the key alone"
        )
    return key or None


def certificates(options: HTTPOptions) -> ssl.SSLContext:
    """The trusted certificates: the defaults or those of SSL_CERT_FILE or SSL_CERT_DIR, and the user's file.

    Raises:
        ConfigError: a file does not exist, or has no certificates.
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
    """The server's error message, in one line."""
    try:
        body = response.json()
        text = str(body.get("error", body).get("message", body))
    except (ValueError, AttributeError):
        text = response.text or response.reason_phrase
    return " ".join(text.split())[:300]


def _pause(response: httpx.Response) -> float:
    """``Retry-After`` in seconds, given as a number or a date (RFC 9110, 10.2.3); 0 if there is none."""
    value = response.headers.get("retry-after", "")
    if re.fullmatch(r"\d+(\.\d*)?", value):
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
