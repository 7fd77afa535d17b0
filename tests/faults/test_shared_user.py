"""Quotas that Linux counts per user are not available to kernels that share a user."""

from __future__ import annotations

import pytest

from sandbox import Sandbox, users
from sandbox.inside import calls
from tests.support.calling import Attack, value_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

TIERS = (1, 2, 3)

# Each may watch the same descriptors again: 15,000 for each process, and more by descriptors that are closed meanwhile.
EPOLLS = """
import select
tried(lambda: [select.epoll().register(number) for number in os.pipe()])
"""
# More senders than there may be wait at a full queue, all of them allowed to send by then: on Linux 6.10 and later
# thousands of descriptors were under way, and no session could be opened.
UNDER_WAY = """
first, second = socket.socketpair()
tried(socket.send_fds, first, [b"x"], [0])
"""


@pytest.mark.parametrize(("code", "refused", "done"), [(EPOLLS, "ENOSYS", "[None, None]"), (UNDER_WAY, "EPERM", "1")])
async def test_quotas_of_a_user(attack: Attack, box: Sandbox, code: str, refused: str, done: str) -> None:
    own = box.tier < 3 and users.changes_users()
    assert await value_of(attack, code) == (done if own else refused)


async def test_threads_have_no_descriptors_of_their_own(attack: Attack, box: Sandbox) -> None:
    """In tier 3, where what they hold is bounded by their number alone."""
    unshare = "call('close_range', 5000, 5000, {}), call('close_range', 5000, 5000, 0)"
    assert await value_of(attack, unshare.format(2)) == ("('EINVAL', 0)" if box.tier == 3 else "(0, 0)")
    if box.tier == 3:
        clone = f"NUMBER['clone'] = {calls.here(calls.ARGUMENTS['clone'])}\n"
        assert await value_of(attack, f"{clone}call('clone', 0x10900, 0, 0, 0, 0)") == "EPERM"  # THREAD, SIGHAND, VM
