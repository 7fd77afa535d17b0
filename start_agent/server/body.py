"""Request bodies: bounded and parsed strictly."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from start_agent.server.errors import APIError

_MAX_DEPTH = 64
_MAX_VALUES = 1_000_000  # estimated by the commas in a body: at most some hundred MB of objects
_LARGEST = (1 << 63) - 1


def parse(data: bytes) -> Any:
    """JSON → objects.

    Raises:
        APIError: 400, the body is not JSON, is nested too deeply, or has a value that no parameter accepts: a number
            that is too large, NaN, a lone surrogate.
    """
    if data.count(b",") > _MAX_VALUES:
        raise APIError(400, f"the body has more than {_MAX_VALUES} values", code="body_too_complex")
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_refused)
    except UnicodeDecodeError as error:
        raise APIError(400, "the body is not UTF-8", code="invalid_json") from error
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:
        reason = f"{error.msg} at character {error.pos}" if isinstance(error, json.JSONDecodeError) else "a bad number"
        raise APIError(400, f"the body is not valid JSON: {reason}", code="invalid_json") from error
    _check(value)
    return value


def _refused(word: str) -> Any:
    raise APIError(400, f"the body is not valid JSON: {word} is not a number", code="invalid_json")


def _too_deep() -> APIError:
    return APIError(400, f"the body is nested more than {_MAX_DEPTH} levels deep", code="body_too_complex")


def _check(value: Any) -> None:
    level, depth = [value], 0
    while level:
        if depth > _MAX_DEPTH:
            raise _too_deep()
        below: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                below += one.values()
                below += one
            elif isinstance(one, list):
                below += one
            elif isinstance(one, str):
                if not one.isascii() and not _encodable(one):
                    raise APIError(400, "the body has half of a surrogate pair in a text", code="invalid_json")
            elif isinstance(one, float):
                if not math.isfinite(one):
                    raise APIError(400, "the body has a number that is too large", code="invalid_json")
            elif one is not None and abs(one) > _LARGEST:
                raise APIError(400, "the body has a number that is too large", code="invalid_json")
        level, depth = below, depth + 1


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _StrictRequest(Request):
    async def json(self) -> Any:
        if not hasattr(self, "_parsed"):
            self._parsed = parse(await self.body())
        return self._parsed


class _StrictRoute(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle, takes_query = super().get_route_handler(), bool(self.dependant.query_params)

        async def strict(request: Request) -> Response:
            if request.query_params and not takes_query:
                name = next(iter(request.query_params))
                raise APIError(400, f"unknown parameter {name[:64]!r}", param=name[:64], code="unknown_parameter")
            return await handle(_StrictRequest(request.scope, request.receive))

        return strict


def new_router() -> APIRouter:
    """A router that parses bodies with ``parse``, and whose routes refuse unknown query parameters."""
    return APIRouter(route_class=_StrictRoute)
