"""Checks which of our vLLM extensions work with the installed version, by inspecting it and not by its version number.

Both extensions depend on internal methods of vLLM. If the scheduler is not compatible, stops are detected in our
process: the results are the same, but a little slower, because the model continues until we have read the end of a
turn. If the executor is not compatible, vLLM uses its own.
"""

from __future__ import annotations

import inspect
from typing import Any

_RETURNED = tuple[list[int], bool]  # the tokens to report, and whether the request has ended


def own_executor() -> Any:
    """``process.OneProcess``, or None if it is not compatible."""
    try:
        from vllm.v1.executor.uniproc_executor import UniProcExecutor

        from start_agent.engines.vllm.process import OneProcess
    except ImportError:
        return None
    return OneProcess if hasattr(UniProcExecutor, "_init_executor") else None


def watching(scheduler: type) -> tuple[Any, str]:
    """The scheduler that detects stops, to use instead of vLLM's ``scheduler``; or None and the reason."""
    try:
        from vllm import SamplingParams

        from start_agent.engines.vllm.scheduler import WATCHING
    except (ImportError, AttributeError) as error:  # a module, or a name in it, does not exist
        return None, str(error)
    if scheduler not in WATCHING:
        return None, f"its scheduler is {scheduler.__name__}"
    if "extra_args" not in inspect.signature(SamplingParams).parameters:
        return None, "its requests have no extra_args"
    if (reason := unfit(scheduler)) is not None:
        return None, reason
    return WATCHING[scheduler], ""


def unfit(scheduler: type) -> str | None:
    """Why ``CheckingScheduler`` cannot replace a scheduler; None if it can.

    vLLM must call ``_update_request_with_output`` with each request and its new tokens, and get the tokens to report
    and whether the request has ended. Further arguments are passed on unchanged to vLLM's own method.
    """
    method = getattr(scheduler, "_update_request_with_output", None)
    if method is None:
        return f"its {scheduler.__name__} has no _update_request_with_output"
    signature = inspect.signature(method)
    if [*signature.parameters][1:3] != ["request", "new_token_ids"] or signature.return_annotation != _RETURNED:
        return f"its {scheduler.__name__}._update_request_with_output has another signature: {signature}"
    return None
