"""Which of our additions to vLLM the installed version takes: found out by looking, not by its number.

Both rest on methods that vLLM does not promise to keep. Where the scheduler does not fit, the turns are watched in our
process: the same results, and a little slower, since the model writes on until we have read the end of a turn. Where
the executor does not, vLLM takes its own.
"""

from __future__ import annotations

import inspect
from typing import Any

_RETURNED = tuple[list[int], bool]  # the tokens to tell of, and whether the request has ended


def own_executor() -> Any:
    """``process.OneProcess``, or None where it does not fit."""
    try:
        from vllm.v1.executor.uniproc_executor import UniProcExecutor

        from start_agent.engines.vllm.process import OneProcess
    except ImportError:
        return None
    return OneProcess if hasattr(UniProcExecutor, "_init_executor") else None


def watching(scheduler: type) -> tuple[Any, str]:
    """The scheduler that watches the turns, to take instead of vLLM's ``scheduler``; or None, and why not."""
    try:
        from vllm import SamplingParams

        from start_agent.engines.vllm.scheduler import WATCHING
    except (ImportError, AttributeError) as error:  # a module, or a name that we take from one, is not there
        return None, str(error)
    if scheduler not in WATCHING:
        return None, f"it is scheduled by {scheduler.__name__}"
    if "extra_args" not in inspect.signature(SamplingParams).parameters:
        return None, "its requests take no further arguments"
    if (reason := unfit(scheduler)) is not None:
        return None, reason
    return WATCHING[scheduler], ""


def unfit(scheduler: type) -> str | None:
    """Why ``CheckingScheduler`` cannot stand in for a scheduler; None where it can.

    vLLM must hand each request and its new tokens to ``_update_request_with_output``, and take back those to tell of
    and whether it has ended; whatever else it hands in goes on to its own method as it is.
    """
    method = getattr(scheduler, "_update_request_with_output", None)
    if method is None:
        return f"its {scheduler.__name__} has no _update_request_with_output"
    signature = inspect.signature(method)
    if [*signature.parameters][1:3] != ["request", "new_token_ids"] or signature.return_annotation != _RETURNED:
        return f"its {scheduler.__name__}._update_request_with_output is another: {signature}"
    return None
