"""Containers: kernels that outlive a response. Each belongs to one client and expires when it is not used.

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

_MOST_GONE = 10_000  # ids of former containers that are remembered, to say what became of them


class ContainerNotFound(APIError):  # noqa: N818 - reads better where it is caught
    """The client has no container of this id; ``expired`` says whether it had one."""

    def __init__(self, id: str, *, expired: bool) -> None:
        if expired:
            reason = "has expired, was deleted or had to make room, with its variables and files: create another one"
            super().__init__(404, f"the container {id[:64]!r} {reason}", code="container_expired")
        else:
            super().__init__(404, f"there is no container {id[:64]!r}", code="container_not_found")
        self.expired = expired


class ContainerBusy(APIError):  # noqa: N818
    """A response is using it."""

    def __init__(self, id: str) -> None:
        super().__init__(
            409, f"the container {id!r} is in use by a response: wait until it ends", code="container_in_use"
        )


class ContainersFull(APIError):  # noqa: N818
    """There are as many containers as there may be."""

    def __init__(self, limit: int) -> None:
        super().__init__(429, f"there are {limit} containers, as many as there may be", code="too_many_containers")


@dataclass(slots=True, eq=False)
class Container:
    """A kernel with a name on the wire.

    Attributes:
        id: of it, ``cntr_…``.
        owner: the client whose it is.
        name: for people.
        created_at: when it was made, in seconds since 1970.
        last_active_at: when it was last used.
        ttl: seconds that it lives unused.
        session: its kernel.
        auto: whether it was made for a response, and is given up for others where there are too many.
        busy: whether a response is using it.
        kept: whether it lives on after that response, where one made it.
        written: when each file was written that the client has put there, by name.
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
        """Whether its time is up."""
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
    """The containers of a server. Those whose time is up are closed whenever one is looked for, and by ``sweep``.

    Args:
        sandbox: where their kernels run.
        limit: how many there may be, besides those that were made for the responses that run now. Where a new one needs
            room, the one that was made for a response and has been idle longest is given up.
        ttl: seconds that one lives unused, where its creator has not said otherwise.
        clock: the time in seconds since 1970.
    """

    def __init__(self, sandbox: BaseSandbox, *, limit: int, ttl: float, clock: Callable[[], float] = time.time) -> None:
        self.sandbox, self.limit, self.ttl, self._clock = sandbox, limit, ttl, clock
        self._all: OrderedDict[str, Container] = OrderedDict()  # the one that was used last at the end
        self._gone: OrderedDict[str, str] = OrderedDict()  # ids of former containers: their owners
        self._closing: set[asyncio.Task[None]] = set()

    def create(self, owner: str, name: str, *, ttl: float | None = None) -> Container:
        """A new container, until its client deletes it or its time is up. Raises ``ContainersFull``."""
        self.sweep()
        if not self._make_room(for_another=True):
            raise ContainersFull(self.limit)
        return self._add(owner, name, ContainerSession(self.sandbox), ttl=self.ttl if ttl is None else ttl)

    def create_for_response(self, owner: str, *, seed: int | None = None, lost: bool = False) -> Container:
        """A new container, for a response to claim at once.

        Args:
            owner: the client.
            seed: where the random numbers of its cells start; None for anywhere.
            lost: whether the model has seen cells of a kernel that is gone.
        """
        return self._add(owner, "", ContainerSession(self.sandbox, seed=seed, lost=lost), ttl=self.ttl, auto=True)

    def get(self, owner: str, id: str) -> Container:
        """The client's container of this id. Raises ``ContainerNotFound``."""
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
        """Close one, and wait until its kernel is gone. Raises ``ContainerNotFound``, ``ContainerBusy``."""
        found = self.get(owner, id)
        if found.busy:
            raise ContainerBusy(id)
        await asyncio.shield(self._close(found))

    def claim(self, container: Container) -> None:
        """A response uses it until ``release``. Raises ``ContainerBusy``."""
        if container.busy:
            raise ContainerBusy(container.id)
        container.busy, container.kept = True, False

    def release(self, container: Container) -> None:
        """The response has ended. One that was made for a response lives on where ``kept`` was set since the claim."""
        container.busy = False
        self.touch(container)
        if container.auto and not container.kept and container.id in self._all:
            self._close(container)
        self._make_room()

    def touch(self, container: Container) -> None:
        """It was used just now."""
        container.last_active_at = self._clock()
        if container.id in self._all:
            self._all.move_to_end(container.id)

    def sweep(self) -> None:
        """Close those whose time is up."""
        now = self._clock()
        for one in [one for one in self._all.values() if one.expired(now)]:
            self._close(one)

    async def sweep_always(self, every: float = 5.0) -> None:
        """Sweep until cancelled, at intervals of so many seconds."""
        while True:
            await asyncio.sleep(every)
            self.sweep()

    async def close(self) -> None:
        """Close all, whoever uses them, and wait until their kernels are gone."""
        for one in list(self._all.values()):
            self._close(one)
        await self.settled()

    async def settled(self) -> None:
        """Wait until the kernels of all that was closed are gone."""
        if self._closing:
            await asyncio.wait(self._closing)

    def _add(self, owner: str, name: str, session: ContainerSession, *, ttl: float, auto: bool = False) -> Container:
        now = self._clock()
        container = Container(new_id("cntr"), owner, name, now, now, ttl, session, auto)
        self._all[container.id] = container
        return container

    def _make_room(self, *, for_another: bool = False) -> bool:
        """Give up idle containers of responses until there are no more than there may be; whether that is so then."""
        while True:
            standing = [one for one in self._all.values() if not (one.auto and one.busy)]
            if len(standing) + for_another <= self.limit:
                return True
            idle = next((one for one in standing if one.auto), None)
            if idle is None:
                return False
            self._close(idle)

    def _close(self, container: Container) -> asyncio.Task[None]:
        """It is no container any more; its kernel ends in a task of its own, whoever is cancelled meanwhile."""
        del self._all[container.id]
        self._gone[container.id] = container.owner
        if len(self._gone) > _MOST_GONE:
            self._gone.popitem(last=False)
        closing = asyncio.create_task(container.session.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        return closing
