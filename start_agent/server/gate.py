"""Middleware that checks every request first: its id, host, key, and the size of its body."""

from __future__ import annotations

import asyncio
import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from start_agent.server.errors import APIError, as_api_error, log_failure
from start_agent.server.state import State

_BODY_SECONDS = 60  # timeout for a request's body
_GUARDED = "/v1"
_REQUEST_ID = re.compile(r"[\w.:/+=-]{1,128}", re.ASCII)


class Gate:
    """ASGI middleware; its own errors and unhandled ones have the same format as all others.

    Args:
        app: the application.
        state: the server's state.
    """

    def __init__(self, app: ASGIApp, state: State) -> None:
        self._app, self._state = app, state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {}).update(request_id=request_id, client="")
        begun = False

        async def named(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        try:
            self._check_host(headers.get("host", ""))
            if scope["path"] == _GUARDED or scope["path"].startswith(_GUARDED + "/"):
                scope["state"]["client"] = self._state.keys.client(headers.get("authorization", ""))
            self._check_length(headers.get("content-length", ""))
            await self._app(scope, _Body(receive, self._state.options.max_body), named)
        except Exception as error:
            if begun:
                raise
            log_failure(error, request_id)
            await as_api_error(error).response(scope, receive, named)

    def _check_host(self, host: str) -> None:
        allowed = self._state.options.allowed_hosts
        name = host.rpartition(":")[0] if re.search(r":\d*$", host) else host
        if allowed and name.lower() not in allowed:
            raise APIError(403, "the Host header names another host: see --allowed-hosts", code="host_not_allowed")

    def _check_length(self, given: str) -> None:
        if given.isdecimal() and int(given[:20]) > self._state.options.max_body:
            raise _too_large(self._state.options.max_body)


class _Body:
    """``receive`` with limits of the body's size and time. Raises ``APIError``, 408 or 413."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self._most, self._size, self._complete = receive, most, 0, False
        self._until = asyncio.get_running_loop().time() + _BODY_SECONDS

    async def __call__(self) -> Message:
        if self._complete:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError as error:
            raise APIError(408, f"the body did not arrive within {_BODY_SECONDS} seconds") from error
        if message["type"] == "http.request":
            self._size += len(message.get("body", b""))
            self._complete = not message.get("more_body", False)
            if self._size > self._most:
                raise _too_large(self._most)
        return message


def _too_large(most: int) -> APIError:
    return APIError(413, f"the body is larger than {most} bytes", code="request_too_large")
