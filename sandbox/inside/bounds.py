"""`resource.setrlimit` for code that asks for more than it may have: it gets what there is.

Programs ask for a stack or for files without bounds "to be safe" (`setrlimit(RLIMIT_STACK, (-1, -1))`) and go on with
what they were given anywhere else, where hard limits are seldom set.
"""

from __future__ import annotations

import resource
import sys
from functools import wraps
from typing import Any

_get, _set = resource.getrlimit, resource.setrlimit
_UNBOUNDED = resource.RLIM_INFINITY


@wraps(_set)
def set_within(name: int, limits: Any, /) -> None:
    """Set the limits, or as much of them as the hard limit allows. Raises as `resource.setrlimit` does otherwise."""
    try:
        _set(name, limits)
    except ValueError:
        most = _get(name)[1]
        soft, hard = limits
        if _size(hard) <= _size(most) or _size(soft) > _size(hard):
            raise
        _set(name, (min(soft, most, key=_size), most))


def _size(limit: int) -> int:
    return sys.maxsize if limit == _UNBOUNDED else limit


def install() -> None:
    """Put it in the place of Python's."""
    resource.setrlimit = set_within
