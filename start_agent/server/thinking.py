"""How much a model shall think: what requests say of it, as variables of the model's chat template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from start_agent.decoding.solver import Solver
from start_agent.server.errors import APIError, unsupported
from start_agent.tokens.templates import ChatOptions, ChatTemplate

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
"""OpenAI's degrees."""

_VARIABLE = "reasoning_effort"
_DEFAULT = "medium"


def chat_options(
    solver: Solver, *, effort: Effort | None = None, variables: Mapping[str, Any] | None = None, param: str = _VARIABLE
) -> ChatOptions:
    """The chat options of a request.

    Args:
        solver: the server's.
        effort: goes to the template's variable of that name. Where it has none, ``none`` switches the thinking off,
            and ``medium``, the default, asks for nothing.
        variables: of the template, over those that the server was started with.
        param: what the request calls the effort.

    Raises:
        APIError: 400, the template cannot do what is asked, or it is asked for in two ways.
    """
    given = dict(variables or {})
    if effort is None:
        return _with(solver, given) if given else solver.chat
    if _VARIABLE in given:
        raise APIError(400, f"{_VARIABLE} is given twice", param=f"chat_template_kwargs.{_VARIABLE}")
    chat = _with(solver, given)
    formats = solver.changed(chat=chat).format
    thinks = formats.prompt("?").thinking
    if effort == "none":
        if not thinks:
            return chat
        switch = formats.switch(False)
        if switch is None:
            raise unsupported(param, "'none' cannot be: the model's chat template cannot switch the thinking off")
        return _with(solver, given | {switch: False})
    if isinstance(formats.renderer, ChatTemplate) and formats.renderer.uses(_VARIABLE):
        return _with(solver, given | {_VARIABLE: effort})
    if effort == _DEFAULT and thinks:
        return chat
    raise unsupported(param, f"{effort!r} cannot be: the model's chat template has no variable {_VARIABLE}")


def _with(solver: Solver, variables: Mapping[str, Any]) -> ChatOptions:
    known = solver.chat.chat_template_kwargs
    return solver.chat.model_copy(update={"chat_template_kwargs": {**known, **variables}})
