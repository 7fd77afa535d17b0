"""Containers: kernels that outlive a response. Each belongs to one client and expires when idle.

A request for an expired container is refused; it never gets a fresh kernel without notice.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from sandbox import BaseSandbox
from start_agent.server.container_session import ContainerSession
from start_agent.server.errors import APIError
from start_agent.server.response_items import JSON, new_id

_MOST_GONE = 10_000  # ids of former containers that are remembered, to report them as expired


class ContainerNotFound(APIError):  # noqa: N818 - reads better where it is caught
    """The client has no container with this id; ``expired`` tells whether it had one."""

    def __init__(self, id: str, *, expired: bool) -> None:
        if expired:
            reason = "has expired or was deleted, with its variables and files: create another one"
            super().__init__(404, f"the container {id[:64]!r} {reason}", code="container_expired")
        else:
            super().__init__(404, f"there is no container {id[:64]!r}", code="container_not_found")
        self.expired = expired


class ContainerBusy(APIError):  # noqa: N818
    """A response is using the container."""

    def __init__(self, id: str) -> None:
        super().__init__(
            409, f"the container {id!r} is in use by a response: wait until it ends", code="container_in_use"
        )


class ContainersFull(APIError):  # noqa: N818
    """The maximum number of containers exists."""

    def __init__(self, limit: int) -> None:
        super().__init__(429, f"there are already {limit} containers, the maximum", code="too_many_containers")


@dataclass(slots=True, eq=False)
class Container:
    """A kernel that clients refer to by an id.

    Attributes:
        id: its id, ``cntr_…``.
        owner: the client that owns it.
        name: a name for humans.
        created_at: creation time in seconds since 1970.
        last_active_at: time of its last use.
        ttl: seconds until it expires when idle.
        session: its kernel.
        auto: whether it was created for a response, and so may be closed to make room for others.
        busy: whether a response is using it.
        kept: whether it stays open after the response that created it.
        written: file name → time of upload, for files that the client has uploaded.
    """

    id: str
    owner: str
    name: str
    created_at: float
    last_active_at: float
    ttl: float
    session: ContainerSession
    auto: bool = False
    busy: bool = False
    kept: bool = False
    written: dict[str, float] = field(default_factory=dict)

    def expired(self, now: float) -> bool:
        """Whether it has expired."""
        return not self.busy and now >= self.last_active_at + self.ttl

    def json(self) -> JSON:
        """OpenAI's object."""
        return {
            "id": self.id,
            "object": "container",
            "created_at": int(self.created_at),
            "status": "running",
            "name": self.name,
            "last_active_at": int(self.last_active_at),
            "expires_after": {"anchor": "last_active_at", "minutes": max(1, round(self.ttl / 60))},
            "network_policy": {"type": "disabled"},
        }


class Containers:
    """The containers of a server. Expired ones are closed by ``sweep``, and on every lookup.

    Args:
        sandbox: the sandbox of their kernels.
        limit: maximum number, without those created for responses that are running. To make room, the container of an
            earlier response that has been idle longest is closed.
        ttl: default time in seconds until an idle container expires.
        clock: the time in seconds since 1970.
    """

    def __init__(self, sandbox: BaseSandbox, *, limit: int, ttl: float, clock: Callable[[], float] = time.time) -> None:
        self.sandbox, self.limit, self.ttl, self._clock = sandbox, limit, ttl, clock
        self._all: OrderedDict[str, Container] = OrderedDict()  # most recently used last
        self._gone: OrderedDict[str, str] = OrderedDict()  # id of a former container → owner
        self._closing: set[asyncio.Task[None]] = set()

    def create(self, owner: str, name: str, *, ttl: float | None = None) -> Container:
        """Create a container, which lives until it is deleted or expires. Raises ``ContainersFull``."""
        self.sweep()
        if not self._make_room(for_another=True):
            raise ContainersFull(self.limit)
        return self._add(owner, name, ContainerSession(self.sandbox), ttl=self.ttl if ttl is None else ttl)

    def create_for_response(self, owner: str, *, seed: int | None = None, lost: bool = False) -> Container:
        """Create a container for a response, which must claim it immediately.

        Args:
            owner: the client.
            seed: seed of the cells' random numbers; None for a random one.
            lost: whether the model has seen cells of a kernel that is gone.
        """
        return self._add(owner, "", ContainerSession(self.sandbox, seed=seed, lost=lost), ttl=self.ttl, auto=True)

    def get(self, owner: str, id: str) -> Container:
        """The client's container with this id. Raises ``ContainerNotFound``."""
        self.sweep()
        found = self._all.get(id)
        if found is None or found.owner != owner:
            raise ContainerNotFound(id, expired=self._gone.get(id) == owner)
        return found

    def list(self, owner: str) -> list[Container]:
        """The client's containers, the oldest first."""
        self.sweep()
        return sorted((one for one in self._all.values() if one.owner == owner), key=lambda one: one.created_at)

    async def delete(self, owner: str, id: str) -> None:
        """Close a container and wait for its kernel to end. Raises ``ContainerNotFound``, ``ContainerBusy``."""
        found = self.get(owner, id)
        if found.busy:
            raise ContainerBusy(id)
        await asyncio.shield(self._close(found))

    def claim(self, container: Container) -> None:
        """Reserve it for a response until ``release``. Raises ``ContainerBusy``."""
        if container.busy:
            raise ContainerBusy(container.id)
        container.busy, container.kept = True, False

    def release(self, container: Container) -> None:
        """Release it after a response. If it was created for the response, it is closed unless ``kept`` was set."""
        container.busy = False
        self.touch(container)
        if container.auto and not container.kept and container.id in self._all:
            self._close(container)
        self._make_room()

    def touch(self, container: Container) -> None:
        """Mark it as just used."""
        container.last_active_at = self._clock()
        if container.id in self._all:
            self._all.move_to_end(container.id)

    def sweep(self) -> None:
        """Close expired containers."""
        now = self._clock()
        for one in [one for one in self._all.values() if one.expired(now)]:
            self._close(one)

    async def sweep_always(self, every: float = 5.0) -> None:
        """Sweep every ``every`` seconds until cancelled."""
        while True:
            await asyncio.sleep(every)
            self.sweep()

    async def close(self) -> None:
        """Close all, even those in use, and wait for their kernels to end."""
        for one in list(self._all.values()):
            self._close(one)
        await self.settled()

    async def settled(self) -> None:
        """Wait for the kernels of closed containers to end."""
        if self._closing:
            await asyncio.wait(self._closing)

    def _add(self, owner: str, name: str, session: ContainerSession, *, ttl: float, auto: bool = False) -> Container:
        now = self._clock()
        container = Container(new_id("cntr"), owner, name, now, now, ttl, session, auto)
        self._all[container.id] = container
        return container

    def _make_room(self, *, for_another: bool = False) -> bool:
        """Close idle containers of responses until the limit is met. Returns whether it is."""
        while True:
            standing = [one for one in self._all.values() if not (one.auto and one.busy)]
            if len(standing) + for_another <= self.limit:
                return True
            idle = next((one for one in standing if one.auto), None)
            if idle is None:
                return False
            self._close(idle)

    def _close(self, container: Container) -> asyncio.Task[None]:
        """Remove a container. A separate task closes its kernel, so that a cancellation does not stop that."""
        del self._all[container.id]
        self._gone[container.id] = container.owner
        if len(self._gone) > _MOST_GONE:
            self._gone.popitem(last=False)
        closing = asyncio.create_task(container.session.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        return closing
