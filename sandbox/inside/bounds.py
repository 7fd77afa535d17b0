"""A `resource.setrlimit` that grants as much as the hard limit allows instead of failing.

Programs request an unlimited stack or unlimited files "to be safe" (`setrlimit(RLIMIT_STACK, (-1, -1))`). That works on
most machines, where hard limits are rarely set.
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
    """Set the limits, or as much of them as the hard limit allows. Raises other errors of `resource.setrlimit`."""
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
    """Replace Python's `resource.setrlimit`."""
    resource.setrlimit = set_within
