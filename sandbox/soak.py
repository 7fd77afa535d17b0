"""A soak test: random hostile cells for minutes or hours, next to ordinary sessions that must not be affected.

In each round every hostile session runs its cells, drawn from a grammar (`sandbox.soak_cells`), while the ordinary
sessions (siblings) are repeatedly queried for their state. At the end of a round the state of each sibling is checked
once more, and that no process of a hostile session is left. The cells follow from the seed of a session, so that
failures can be replayed.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from sandbox.base import BaseSandbox, Session
from sandbox.limits import Limits
from sandbox.remains import Remains, descendants
from sandbox.result import Outcome, Result
from sandbox.sandbox import Sandbox
from sandbox.soak_cells import Cell, session_of
from sandbox.vitals import Vitals, Watch

LIMITS = Limits(
    seconds=1,
    grace_seconds=0.3,
    memory_bytes=384 << 20,
    memory_in_sum_bytes=448 << 20,
    processes=32,
    disk_bytes=8 << 20,
    inodes=2_000,
    cells=1 << 40,
)
"""Small, so that hostile cells reach them soon and a machine with 8 GB holds 32 sessions at once."""

_SIBLINGS_IN = 4  # one of this many sessions is a sibling
_QUESTION_SECONDS = 60.0  # timeout of a query to a sibling
_PAUSE_SECONDS = 0.1  # between two queries to a sibling
_SETTLE_SECONDS = 20.0  # at the end of a round, for kernels to be ready again and processes to be gone
_SESSION_SECONDS = 600.0  # a hostile session that takes longer counts as hung
_OVERDUE_SECONDS = 2.0  # this long after its timeout and grace period, a result counts as overdue


@dataclass(slots=True)
class Tally:
    """Counts and failures so far.

    Attributes:
        rounds, sessions, cells: number completed, without those of siblings.
        outcomes: hostile and ordinary cells, by outcome.
        kinds: acts, by kind.
        lost: failures, with their seed: lost state of siblings, faults, wrong answers, leftovers.
        overdue: cells whose result came more than 2 s after their timeout and grace period.
        slowest: the longest response time of a sibling, in seconds.
        answers: number of answers from siblings.
    """

    rounds: int = 0
    sessions: int = 0
    cells: int = 0
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    overdue: list[str] = field(default_factory=list)
    slowest: float = 0.0
    answers: int = 0


class _Sibling:
    """A session whose state is checked: a variable, a file, a counter, and a running thread."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._secret = secrets.token_hex(8)
        self._count = 0

    async def settle(self) -> str:
        """Create the state. Returns an error message, or an empty string."""
        code = (
            f"secret, count = {self._secret!r}, 0\n"
            "with open('note', 'w') as file: file.write(secret)\n"
            "import threading\nhalt = threading.Event()\n"
            "thread = threading.Thread(target=halt.wait, daemon=True)\nthread.start()"
        )
        result = await self._session.execute(code, timeout=_QUESTION_SECONDS)
        return "" if result.outcome is Outcome.OK else f"cannot settle: {result.text}"

    async def ask(self) -> str:
        """Check the state. Returns an error message, or an empty string."""
        self._count += 1
        code = "count += 1\nprint(secret, count, open('note').read(), thread.is_alive(), 6 * 7)"
        result = await self._session.execute(code, timeout=_QUESTION_SECONDS)
        if result.text == f"{self._secret} {self._count} {self._secret} True 42":
            return ""
        return f"{result.outcome}: {result.text[-300:]!r}"


class Soak:
    """A soak test of one sandbox.

    Args:
        box: an open sandbox with room for at least two sessions.
        sessions: number of concurrent sessions; a quarter of them, and at least one, are siblings.
        seed: determines all cells.
    """

    def __init__(self, box: BaseSandbox, sessions: int, seed: int) -> None:
        if sessions < 2 or box.size < 2:
            raise ValueError("a soak test needs at least two sessions, one of them a sibling")
        self.tally = Tally()
        self._box = box
        self._seed = seed
        self._siblings = min(max(1, sessions // _SIBLINGS_IN), box.size - 1)
        self._hostile = sessions - self._siblings
        self._others: int | None = None  # number of processes other than kernels when no cell runs

    async def run(self, enough: Callable[[Tally], bool], after: Callable[[Tally], Awaitable[None]]) -> None:
        """Run rounds until `enough` returns True; `after` is called after each."""
        async with AsyncExitStack() as stack:
            siblings = [await self._new_sibling(stack) for _ in range(self._siblings)]
            while not enough(self.tally):
                await self._round(siblings, stack)
                self.tally.rounds += 1
                await after(self.tally)

    async def _new_sibling(self, stack: AsyncExitStack) -> _Sibling:
        sibling = _Sibling(await stack.enter_async_context(self._box.session()))
        if wrong := await sibling.settle():
            self.tally.lost.append(f"a new sibling {wrong}")
        return sibling

    async def _round(self, siblings: list[_Sibling], stack: AsyncExitStack) -> None:
        number = self.tally.rounds
        over = asyncio.Event()
        watched = [asyncio.create_task(self._question(sibling, over)) for sibling in siblings]
        await asyncio.gather(*(self._attack(f"{self._seed}.{number}.{slot}") for slot in range(self._hostile)))
        over.set()
        for place, wrong in enumerate(await asyncio.gather(*watched)):
            if wrong:
                self.tally.lost.append(f"a sibling in round {self._seed}.{number}: {wrong}")
                siblings[place] = await self._new_sibling(stack)
        await self._settle(f"{self._seed}.{number}")

    async def _question(self, sibling: _Sibling, over: asyncio.Event) -> str:
        """Check a sibling repeatedly, and once more when the round is over. Returns an error message, or empty."""
        while True:
            last, began = over.is_set(), time.monotonic()
            try:
                wrong = await sibling.ask()
            except Exception as error:  # as in `_attack`
                return f"{type(error).__name__}: {error}"
            self.tally.answers += 1
            self.tally.slowest = max(self.tally.slowest, time.monotonic() - began)
            if wrong or last:
                return wrong
            try:
                async with asyncio.timeout(_PAUSE_SECONDS):
                    await over.wait()
            except TimeoutError:
                pass

    async def _attack(self, seed: str) -> None:
        try:
            async with asyncio.timeout(_SESSION_SECONDS), self._box.session() as session:
                for number, cell in enumerate(session_of(seed)):
                    result = await session.execute(cell.code, timeout=cell.timeout, fork=cell.fork and self._box.forks)
                    self._count(cell, result, f"cell {number} of {seed}")
        except TimeoutError:
            self.tally.lost.append(f"{seed}: the session hung for {_SESSION_SECONDS:g} s")
        except Exception as error:  # any exception that code can make the sandbox raise is a failure
            self.tally.lost.append(f"{seed}: {type(error).__name__}: {error}")
        self.tally.sessions += 1

    def _count(self, cell: Cell, result: Result, name: str) -> None:
        tally, limits = self.tally, self._box.limits
        tally.cells += 1
        tally.outcomes[result.outcome] += 1
        tally.kinds.update(cell.kinds)
        if cell.text is not None and (result.outcome, result.text) != (Outcome.OK, cell.text):
            tally.lost.append(f"{name}: an ordinary cell came to {result.outcome}: {result.text[-300:]!r}")
        if cell.fails and result.outcome is Outcome.OK:
            tally.lost.append(f"{name}: an exception was reported as OK: {result.text[-300:]!r}")
        if len(result.text) > 2 * limits.output_chars + 1_000:
            tally.lost.append(f"{name}: a text of {len(result.text):,} characters")
        if result.duration_s > cell.timeout + limits.grace_seconds + _OVERDUE_SECONDS:
            tally.overdue.append(f"{name}: a result after {result.duration_s:.1f} s, timeout {cell.timeout:g} s")

    async def _settle(self, name: str) -> None:
        """Wait until only the kernels of siblings and idle kernels are left."""
        end = time.monotonic() + _SETTLE_SECONDS
        while True:
            stats = self._box.stats
            processes = len(await asyncio.to_thread(descendants))  # reading /proc is slow and would stall the loop
            kernels, others = stats.kernels_live, processes - stats.kernels_live
            if kernels == stats.kernels_ready + self._siblings and others == (self._others or others):
                self._others = others
                return
            if time.monotonic() > end:
                break
            await asyncio.sleep(0.05)
        self.tally.lost.append(
            f"left after round {name}: {kernels} kernels ({stats.kernels_ready} ready, {self._siblings} siblings'), "
            f"{others - (self._others or others)} other processes more than before"
        )
        self._others = None


@dataclass(slots=True)
class Report:
    """The result of a soak test.

    Attributes:
        tally: counts and failures.
        isolation: isolation of the sandbox.
        seconds: duration.
        sessions_at_once: concurrent sessions, including siblings.
        before: the vitals after the first round.
        after: the vitals at the end, with as many kernels.
        watch: measurements of the event loop and memory, from the first round on.
    """

    tally: Tally
    isolation: str
    seconds: float
    sessions_at_once: int
    before: Vitals
    after: Vitals
    watch: Watch


async def soak(
    minutes: float,
    sessions: int = 32,
    seed: int = 0,
    *,
    size: int | None = None,
    box: Sandbox | None = None,
    progress: Callable[[Tally, Watch], None] = lambda tally, watch: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Report:
    """Run a soak test on a sandbox, and check what is left of it after closing.

    Args:
        minutes: how long new rounds are started; at least one round is run after the first, which warms up.
        sessions: number of concurrent sessions; a quarter of them, and at least one, are siblings.
        seed: determines all cells.
        size: size of the sandbox; None for the number of sessions. With fewer, sessions wait.
        box: the sandbox, not yet open; None for one with `LIMITS`.
        progress: called after each round.
        stopped: called after each round; the test ends when it returns True.

    Raises:
        SandboxError: no sandbox can be opened here.
        ValueError: there are fewer than two sessions or places.
    """
    began = time.monotonic()
    box = Sandbox(LIMITS, size=size or sessions) if box is None else box
    before: list[Vitals] = []
    last: Vitals | None = None
    found, tally = Remains(), Tally()
    async with Watch() as watch:
        try:
            async with box:
                found |= Remains.of(box._require_open())
                work = Soak(box, sessions, seed)
                tally = work.tally

                async def after(tally: Tally) -> None:
                    nonlocal found
                    found |= await asyncio.to_thread(Remains.of, box._require_open())
                    if not before:  # measured from here: what the first round loads is not a leak
                        watch.reset()
                        before.append(watch.began)
                    progress(tally, watch)

                def enough(tally: Tally) -> bool:
                    return tally.rounds > 1 and (stopped() or time.monotonic() - began > 60 * minutes)

                await work.run(enough, after)
                last = watch.look()
        except Exception as error:  # raised while closing, perhaps because of something that code has left
            if last is None:
                raise
            tally.lost.append(f"closing the sandbox: {type(error).__name__}: {error}")
    tally.lost += [f"left at the end: {what}" for what in found.left()]
    if faults := box.stats.faults:
        tally.lost.append(f"{faults} infrastructure faults, including those resolved by a retry")
    if restarts := box.stats.zygote_restarts:
        tally.lost.append(f"the zygote died {restarts} times")
    return Report(tally, box.isolation, time.monotonic() - began, sessions, before[0], last, watch)
