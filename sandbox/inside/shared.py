"""Where kernels share their user with others: Python without the calls that the filter then refuses."""

from __future__ import annotations

import asyncio.selector_events
import multiprocessing.context
import selectors
from typing import Any

user = False
"""Whether they do; see `REFUSED_WITH_A_SHARED_USER` in `sandbox.inside.calls`."""


def do_without() -> None:
    """Wait with poll, not with epoll, and send no descriptors. To be called in the zygote."""
    global user
    user = True
    selectors.DefaultSelector = selectors.PollSelector  # type: ignore[misc, assignment]
    events: Any = asyncio.selector_events
    events._HAS_SENDMSG = False  # Python 3.12: several texts at a time
    context: Any = multiprocessing.context
    # Python 3.14 starts processes by a server, which is sent descriptors; as before, they are forked.
    context._default_context._default_context = context._concrete_contexts["fork"]
