"""Reasoning effort: request parameters → variables of the model's chat template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from start_agent.decoding.solver import Solver
from start_agent.errors import ConfigError
from start_agent.server.errors import APIError, about, unsupported
from start_agent.tokens.templates import ChatOptions, ChatTemplate

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
"""OpenAI's values."""

_VARIABLE = "reasoning_effort"
_DEFAULT = "medium"


def chat_options(
    solver: Solver, *, effort: Effort | None = None, variables: Mapping[str, Any] | None = None, param: str = _VARIABLE
) -> ChatOptions:
    """The chat options of a request.

    Args:
        solver: the server's solver.
        effort: passed to the template's variable ``reasoning_effort``. If it has none, ``none`` turns thinking off, and
            ``medium``, the default, has no effect.
        variables: template variables of the request; they override the server's.
        param: the request's name of the effort, for errors.

    Raises:
        APIError: 400, the template does not support the effort, or it is given twice.
    """
    given = dict(variables or {})
    if effort is None:
        return _with(solver, given) if given else solver.chat
    if _VARIABLE in given:
        raise APIError(400, f"{_VARIABLE} is given twice", param=f"chat_template_kwargs.{_VARIABLE}")
    chat = _with(solver, given)
    with about("chat_template_kwargs", ConfigError):
        formats = solver.changed(chat=chat).format
    thinks = formats.prompt("?").thinking
    if effort == "none":
        if not thinks:
            return chat
        switch = formats.switch(False)
        if switch is None:
            raise unsupported(param, "cannot be 'none': the model's chat template cannot turn thinking off")
        return _with(solver, given | {switch: False})
    if isinstance(formats.renderer, ChatTemplate) and formats.renderer.uses(_VARIABLE):
        return _with(solver, given | {_VARIABLE: effort})
    if effort == _DEFAULT and thinks:
        return chat
    raise unsupported(param, f"cannot be {effort!r}: the model's chat template has no variable {_VARIABLE}")


def _with(solver: Solver, variables: Mapping[str, Any]) -> ChatOptions:
    known = solver.chat.chat_template_kwargs
    return solver.chat.model_copy(update={"chat_template_kwargs": {**known, **variables}})
