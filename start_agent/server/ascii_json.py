"""Responses as ASCII JSON. Text from models and cells may be hostile, and clients print it.

Escaping makes control characters above ASCII, which JSON allows unescaped, harmless in a terminal; and some clients
treat other Unicode characters than line feeds as line ends.
"""

from __future__ import annotations

import json
from typing import Any

from starlette import responses


def dumps(value: Any) -> str:
    """Compact JSON in ASCII."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


class JSONResponse(responses.JSONResponse):
    """A response of ASCII JSON."""

    def render(self, content: Any) -> bytes:
        """See ``Response``."""
        return dumps(content).encode()
