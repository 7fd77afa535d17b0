"""Makes Python avoid the calls that the filter refuses where kernels share their user id with other processes."""

from __future__ import annotations

import asyncio.selector_events
import multiprocessing.context
import selectors
from typing import Any

user = False
"""Whether kernels share their user id; see `REFUSED_WITH_A_SHARED_USER` in `sandbox.inside.calls`."""


def do_without() -> None:
    """Use poll instead of epoll, and send no descriptors. To be called in the zygote."""
    global user
    user = True
    selectors.DefaultSelector = selectors.PollSelector  # type: ignore[misc, assignment]
    events: Any = asyncio.selector_events
    events._HAS_SENDMSG = False  # Python 3.12 uses it to send several buffers at once
    context: Any = multiprocessing.context
    # Python 3.14 starts processes through a fork server, which receives descriptors; use fork as before.
    context._default_context._default_context = context._concrete_contexts["fork"]
