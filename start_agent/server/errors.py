"""Errors in OpenAI's format: one line, without details of the host."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from hints import HintError
from sandbox import SandboxError
from start_agent.errors import ContextLengthError, EngineError, InputError, PromptError, StartAgentError, first_line
from start_agent.server.ascii_json import JSONResponse

logger = logging.getLogger(__name__)


class ErrorDetail(BaseModel):
    """The error."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of an error response."""

    error: ErrorDetail


ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody, "description": "the request cannot be answered: see ``error``"},
    "5XX": {"model": ErrorBody, "description": "the server cannot answer it"},
}
"""The errors of every route, for the OpenAPI document."""

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "service_unavailable_error",
    504: "timeout_error",
}
"""The default type of an error by status; ``invalid_request_error`` for all others."""

_MAX_CHARS = 300  # of a message, which may quote the client


class APIError(HTTPException):
    """An error response.

    Args:
        status: the HTTP status, from 400.
        message: one line that says what is wrong.
        type: OpenAI's name for the kind of error; by default derived from the status.
        param: the invalid parameter, such as ``messages.0.content``.
        code: a machine-readable code; by default ``invalid_value`` for an invalid parameter (status 400).
        headers: headers of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        type: str = "",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.message = _one_line(message)
        super().__init__(status, self.message, dict(headers or {}))
        self.type = type or _TYPES.get(status, "invalid_request_error")
        self.param = param
        self.code = code or ("invalid_value" if status == 400 and param else None)

    @property
    def body(self) -> dict[str, Any]:
        """The JSON body."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": error}

    @property
    def response(self) -> JSONResponse:
        """The response."""
        return JSONResponse(self.body, self.status_code, self.headers)


def unsupported(param: str, why: str = "is not supported here") -> APIError:
    """The error for a known parameter that is not supported."""
    return APIError(400, f"{param} {why}", param=param, code="unsupported_parameter")


@contextmanager
def about(param: str, kind: type[InputError] = PromptError) -> Iterator[None]:
    """Errors of this kind in the block are those of a parameter.

    Args:
        param: its path, as for ``APIError``.
        kind: which errors; others pass.

    Raises:
        APIError: 400, in place of such an error, with the code ``context_length_exceeded`` or ``invalid_value``.
    """
    try:
        yield
    except kind as error:
        code = "context_length_exceeded" if isinstance(error, ContextLengthError) else "invalid_value"
        raise APIError(400, first_line(error), param=param, code=code) from error


def as_api_error(error: BaseException) -> APIError:
    """The response for an exception. Messages of internal failures are only logged: they may reveal the host."""
    match error:
        case APIError():
            return error
        case HTTPException(status_code=404):  # from the framework: our own are APIErrors
            return APIError(404, "there is no such path: /openapi.json lists all, the API's begin with /v1")
        case HTTPException():
            return APIError(error.status_code, str(error.detail), headers=error.headers)
        case RequestValidationError():
            return invalid(error.errors(), error.body)
        case InputError() | HintError():
            return APIError(400, first_line(error), code="invalid_value")
        case TimeoutError():
            return APIError(504, "the request took longer than the server allows", code="request_timeout")
        case EngineError():
            return APIError(503, "the engine failed: try again", code="engine_failed", headers={"Retry-After": "5"})
        case SandboxError():
            return APIError(503, "the sandbox failed: try again", code="sandbox_failed", headers={"Retry-After": "5"})
        case _:
            return APIError(500, "the server failed; its log says why", code="internal_error")


def log_failure(error: BaseException, request_id: str) -> None:
    """Log an internal failure for the operator. Errors of clients are not logged."""
    if isinstance(error, HTTPException | RequestValidationError | InputError | HintError | TimeoutError):
        return
    if isinstance(error, StartAgentError | SandboxError):
        logger.error("request %s: %s", request_id, first_line(error))
    else:
        logger.error("request %s failed", request_id, exc_info=error)


def invalid(errors: Sequence[Any], body: object) -> APIError:
    """The first of pydantic's errors about a request, with the path to the parameter."""
    first = errors[0]
    param = _path(first["loc"], body)
    where = param or "the body"
    match first["type"]:
        case "extra_forbidden":
            return APIError(400, f"unknown parameter {where!r}", param=param, code="unknown_parameter")
        case "missing" if not param:
            return APIError(400, "a JSON object is expected as the body, sent as application/json")
        case "missing":
            return APIError(400, f"{where} is missing", param=param, code="missing_required_parameter")
        case "unsupported":
            return unsupported(where, first["msg"])
        case "model_attributes_type" | "model_type" | "dict_type" if not param:
            return APIError(400, "a JSON object is expected as the body, sent as application/json")
    message = first["msg"].removeprefix("Value error, ")
    return APIError(400, f"{where}: {message[:1].lower()}{message[1:]}", param=param, code="invalid_value")


def add_handlers(app: FastAPI) -> None:
    """Register handlers for the application's errors; all others are defects, which ``Gate`` answers."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        log_failure(error, getattr(request.state, "request_id", ""))
        found = as_api_error(error)
        if found.status_code == 405:
            found.headers = {"Allow": ", ".join(_methods(request))}
        return found.response

    kinds = (HTTPException, RequestValidationError, StartAgentError, SandboxError, HintError, TimeoutError)
    for kind in kinds:
        app.add_exception_handler(kind, answer)


def _methods(request: Request) -> list[str]:
    """The methods of all routes of a path; the router's own answer has only those of one route."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    found = [route.methods or () for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for methods in found for method in methods})


def _path(location: Sequence[Any], body: object) -> str | None:
    """The path as clients write it, without pydantic's names of union members."""
    if location and location[0] in ("query", "path", "header"):
        return _one_line(".".join(map(str, location[1:]))) or None
    parts, here, rest = list[str](), body, list(location[1:])  # the first part is "body"
    for at, part in enumerate(rest):
        found = isinstance(here, Mapping) and part in here
        found = found or (isinstance(here, list) and isinstance(part, int) and part < len(here))
        if found:
            here = here[part]  # type: ignore[index]
        elif not (isinstance(here, Mapping) and at == len(rest) - 1):  # the last part may be a missing field
            continue
        parts.append(str(part))
    return _one_line(".".join(parts)) or None


def _one_line(text: str) -> str:
    words = " ".join(text.split())
    shown = "".join(char if char.isprintable() else "?" for char in words)
    return shown if len(shown) <= _MAX_CHARS else shown[: _MAX_CHARS - 3] + "..."
