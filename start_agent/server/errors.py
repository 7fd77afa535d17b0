"""Errors as OpenAI's wire has them: one shape, one line, nothing of the host."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from hints import HintError
from sandbox import SandboxError
from start_agent.errors import EngineError, InputError, StartAgentError, first_line
from start_agent.server.ascii_json import JSONResponse

logger = logging.getLogger(__name__)


class ErrorDetail(BaseModel):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of every error."""

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
"""The type of an error where none is given, by status; of the other statuses it is ``invalid_request_error``."""

_LONGEST = 300  # characters of a message; what clients sent may stand in it


class APIError(HTTPException):
    """What a client is answered in place of a result.

    Args:
        status: of HTTP, from 400 on.
        message: one line that says what is wrong.
        type: OpenAI's name for the kind of error; unset, by the status.
        param: the parameter that is wrong, as ``messages.0.content``.
        code: a word for programs.
        headers: of the answer.
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
        self.param, self.code = param, code

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object that is sent."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": error}

    @property
    def response(self) -> JSONResponse:
        """The answer."""
        return JSONResponse(self.body, self.status_code, self.headers)


def unsupported(param: str, why: str = "is not supported here") -> APIError:
    """A parameter that is known and refused."""
    return APIError(400, f"{param} {why}", param=param, code="unsupported_parameter")


def as_api_error(error: BaseException) -> APIError:
    """The answer to an error. The message of a failure of ours stays in the log: it may name the host."""
    match error:
        case APIError():
            return error
        case HTTPException(status_code=404):  # of the framework alone: ours are APIErrors
            return APIError(404, "there is no such path: /openapi.json lists all, the API's begin with /v1")
        case HTTPException():
            return APIError(error.status_code, str(error.detail), headers=error.headers)
        case RequestValidationError():
            return invalid(error.errors(), error.body)
        case InputError() | HintError():
            return APIError(400, first_line(error))
        case TimeoutError():
            return APIError(504, "the request took longer than the server allows", code="request_timeout")
        case EngineError():
            return APIError(503, "the engine failed: try again", code="engine_failed", headers={"Retry-After": "5"})
        case SandboxError():
            return APIError(503, "the sandbox failed: try again", code="sandbox_failed", headers={"Retry-After": "5"})
        case _:
            return APIError(500, "the server failed; its log says why", code="internal_error")


def log_failure(error: BaseException, request_id: str) -> None:
    """Write what only the operator may read. What clients did wrong is not logged."""
    if isinstance(error, HTTPException | RequestValidationError | InputError | HintError | TimeoutError):
        return
    if isinstance(error, StartAgentError | SandboxError):
        logger.error("request %s: %s", request_id, first_line(error))
    else:
        logger.error("request %s failed", request_id, exc_info=error)


def invalid(errors: Sequence[Any], body: object) -> APIError:
    """What pydantic found wrong in a request: the first of it, with the path to the parameter."""
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
    """Have the errors of the application answered in this shape; all others are defects, which ``Gate`` answers."""

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
    """The methods of all routes of a path: the router itself names those of one."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    found = [route.methods or () for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for methods in found for method in methods})


def _path(location: Sequence[Any], body: object) -> str | None:
    """The path as clients write it: pydantic's has the names of union members among its parts."""
    if location and location[0] in ("query", "path", "header"):
        return _one_line(".".join(map(str, location[1:]))) or None
    parts, here, rest = list[str](), body, list(location[1:])  # the first part says that it is the body
    for at, part in enumerate(rest):
        found = isinstance(here, Mapping) and part in here
        found = found or (isinstance(here, list) and isinstance(part, int) and part < len(here))
        if found:
            here = here[part]  # type: ignore[index]
        elif not (isinstance(here, Mapping) and at == len(rest) - 1):  # what is missing is no union member either
            continue
        parts.append(str(part))
    return _one_line(".".join(parts)) or None


def _one_line(text: str) -> str:
    words = " ".join(text.split())
    shown = "".join(char if char.isprintable() else "?" for char in words)
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 3] + "..."
