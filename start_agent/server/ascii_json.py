"""JSON as it is sent: in ASCII. What models and cells write is hostile, and clients print it.

An escape does nothing in a terminal, also that of a control character above ASCII, which JSON lets stand; and some
clients take other characters of Unicode than line feeds for ends of lines.
"""

from __future__ import annotations

import json
from typing import Any

from starlette import responses


def dumps(value: Any) -> str:
    """Compact JSON in ASCII."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


class JSONResponse(responses.JSONResponse):
    """An answer of JSON in ASCII."""

    def render(self, content: Any) -> bytes:
        """See ``Response``."""
        return dumps(content).encode()
