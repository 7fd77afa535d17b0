"""Containers: kernels that outlive a response, each of one client, until nobody has used them for a while.

An expired container is refused as such: nobody is given a fresh kernel without a word.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from sandbox import BaseSandbox
from start_agent.errors import StartAgentError
from start_agent.server.container_session import ContainerSession
from start_agent.server.response_items import JSON, new_id

_MOST_GONE = 10_000  # ids of former containers that are remembered, to say what became of them


class ContainerError(StartAgentError):
    """A container cannot be used. ``id`` is its id, where one was given."""

    def __init__(self, message: str, id: str = "") -> None:
        super().__init__(message)
        self.id = id


class ContainerNotFound(ContainerError):  # noqa: N818 - reads better where it is caught
    """There is none of this id that the client may use; ``expired`` says that there was one."""

    def __init__(self, id: str, *, expired: bool) -> None:
        shown = repr(id[:64])
        if expired:
            reason = (
                f"the container {shown} has expired or was deleted, with all its variables and files: create another"
            )
        else:
            reason = f"there is no container {shown}"
        super().__init__(reason, id)
        self.expired = expired


class ContainerBusy(ContainerError):  # noqa: N818
    """A response is using it."""

    def __init__(self, id: str) -> None:
        super().__init__(f"the container {id!r} is in use by another response: wait until that has ended", id)


class ContainersFull(ContainerError):  # noqa: N818
    """There are as many containers as there may be."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"there are {limit} containers already, as many as there may be: delete one")


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
        kept: whether it shall live on after the response that it was made for.
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
    """The containers of a server.

    Args:
        sandbox: where their kernels run.
        limit: how many there may be, besides those that were made for the responses that run now. Where a new one needs
            room, the one that was made for a response and has been idle longest is given up.
        ttl: seconds that one lives unused, where its creator has not said otherwise.
        clock: the time in seconds since 1970.
    """

    def __init__(self, sandbox: BaseSandbox, *, limit: int, ttl: float, clock: Callable[[], float] = time.time) -> None:
        self._sandbox, self._limit, self.ttl, self._clock = sandbox, limit, ttl, clock
        self._all: OrderedDict[str, Container] = OrderedDict()  # the one that was used last at the end
        self._gone: OrderedDict[str, str] = OrderedDict()  # ids of former containers: their owners
        self._closing: set[asyncio.Task[None]] = set()

    async def create(self, owner: str, name: str = "", *, ttl: float | None = None) -> Container:
        """A new container, until its client deletes it or its time is up. Raises ``ContainersFull``."""
        await self.sweep()
        if not await self._room(for_another=True):
            raise ContainersFull(self._limit)
        now = self._clock()
        session = ContainerSession(self._sandbox)
        return self._add(Container(new_id("cntr"), owner, name, now, now, self.ttl if ttl is None else ttl, session))

    async def get(self, owner: str, id: str) -> Container:
        """The client's container of this id. Raises ``ContainerNotFound``."""
        await self.sweep()
        found = self._all.get(id)
        if found is None or found.owner != owner:
            raise ContainerNotFound(id, expired=self._gone.get(id) == owner)
        return found

    async def list(self, owner: str) -> list[Container]:
        """The client's containers, the oldest first."""
        await self.sweep()
        return sorted((one for one in self._all.values() if one.owner == owner), key=lambda one: one.created_at)

    async def delete(self, owner: str, id: str) -> None:
        """Close one. Raises ``ContainerNotFound``, ``ContainerBusy``."""
        found = await self.get(owner, id)
        if found.busy:
            raise ContainerBusy(id)
        await self._close(found)

    @asynccontextmanager
    async def used(self, container: Container) -> AsyncIterator[None]:
        """While a response uses it. Raises ``ContainerBusy``, ``ContainerNotFound``."""
        if container.id not in self._all:  # it was given up in the meantime
            raise ContainerNotFound(container.id, expired=True)
        if container.busy:
            raise ContainerBusy(container.id)
        container.busy = True
        try:
            yield
        finally:
            container.busy = False
            self.touch(container)
            await self._room()

    @asynccontextmanager
    async def made_for(self, owner: str, *, seed: int | None = None, lost: bool = False) -> AsyncIterator[Container]:
        """A container for one response. It lives on where ``kept`` is set by then and the response was not given up.

        Args:
            owner: the client.
            seed: where the random numbers of its cells start; None for anywhere.
            lost: whether the model has seen cells of a kernel that is gone.
        """
        session, now = ContainerSession(self._sandbox, seed=seed, lost=lost), self._clock()
        made = self._add(Container(new_id("cntr"), owner, "", now, now, self.ttl, session, auto=True, busy=True))
        try:
            yield made
        except BaseException:
            made.kept = False
            raise
        finally:
            made.busy = False
            self.touch(made)
            if not made.kept:
                await self._close(made, remember=False)
            await self._room()

    def touch(self, container: Container) -> None:
        """It was used just now."""
        container.last_active_at = self._clock()
        if container.id in self._all:
            self._all.move_to_end(container.id)

    async def sweep(self) -> None:
        """Close those whose time is up."""
        now = self._clock()
        for one in [one for one in self._all.values() if one.expired(now)]:
            await self._close(one)

    async def sweep_always(self, every: float = 10.0) -> None:
        """Sweep until cancelled, at intervals of so many seconds."""
        while True:
            await asyncio.sleep(every)
            await self.sweep()

    async def close(self) -> None:
        """Close all, whoever uses them."""
        for one in list(self._all.values()):
            await self._close(one)
        if self._closing:
            await asyncio.wait(self._closing)

    def _add(self, container: Container) -> Container:
        self._all[container.id] = container
        return container

    async def _room(self, *, for_another: bool = False) -> bool:
        """Give up idle containers of responses until there are no more than there may be; whether that is so then."""
        while True:
            standing = [one for one in self._all.values() if not (one.auto and one.busy)]
            if len(standing) + for_another <= self._limit:
                return True
            idle = next((one for one in standing if one.auto), None)
            if idle is None:
                return False
            await self._close(idle)

    async def _close(self, container: Container, *, remember: bool = True) -> None:
        if self._all.pop(container.id, None) is None:
            return
        if remember:
            self._gone[container.id] = container.owner
            if len(self._gone) > _MOST_GONE:
                self._gone.popitem(last=False)
        # A task of its own: whoever is cancelled while this waits, the kernel is given back.
        closing = asyncio.create_task(container.session.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        await asyncio.shield(closing)
