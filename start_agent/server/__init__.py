"""The HTTP server: OpenAI's API over the solver. It may use everything below ``cli``; only commands and users use it.

Importing the package imports no web framework: names are loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from start_agent.server.app import create_app
    from start_agent.server.options import ServerOptions
    from start_agent.server.serving import serve

_HOMES = {"ServerOptions": "options", "create_app": "app", "serve": "serving"}

__all__ = ["ServerOptions", "create_app", "serve"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
