"""The soak test's grammar, what it counts as lost, and its monitor."""

from __future__ import annotations

import ast
import asyncio
import re
import string
import time

import pytest

from sandbox import FakeSandbox, KernelStartError, Outcome, Result
from sandbox.soak import Soak
from sandbox.soak_acts import ACTS
from sandbox.soak_cells import session_of
from sandbox.vitals import Watch

STATE = re.compile(r"secret, count = '(\w+)'")


class Siblings:
    """Answers as a fake sandbox's sessions would, were all well; and ordinary cells by running them."""

    def __init__(self) -> None:
        self.secret = ""
        self.count = 0
        self.forgets = False

    def __call__(self, code: str) -> Result:
        if found := STATE.match(code):
            self.secret, self.count = found[1], 0
            return Result(Outcome.OK)
        if code.startswith("count += 1"):
            self.count += 1
            return Result(Outcome.OK, f"{'' if self.forgets else self.secret} {self.count} {self.secret} True 42\n")
        return Result(Outcome.ERROR, error="not run")


async def soaked(siblings: Siblings, box: FakeSandbox | None = None) -> Soak:
    async with box or FakeSandbox(siblings) as opened:
        opened.stats.kernels_live = 1  # one sibling
        soak = Soak(opened, 3, seed=5)
        await soak.run(lambda tally: tally.rounds == 2, lambda tally: asyncio.sleep(0))
    return soak


def losses(soak: Soak) -> list[str]:
    """But for those of ordinary cells, which the fake does not run."""
    return [text for text in soak.tally.lost if "ordinary cell" not in text]


async def test_nothing_is_lost_where_siblings_keep_their_state() -> None:
    soak = await soaked(Siblings())
    assert losses(soak) == []
    assert soak.tally.sessions == 4 and soak.tally.answers >= 2


async def test_a_sibling_that_forgets_is_a_loss_in_each_round() -> None:
    siblings = Siblings()
    siblings.forgets = True
    assert [text[:27] for text in losses(await soaked(siblings))] == [
        "a sibling in round 5.0: ok:",
        "a sibling in round 5.1: ok:",
    ]


async def test_a_fault_is_a_loss() -> None:
    def answer(code: str) -> Result:
        if "secret" in code:
            return siblings(code)
        raise KernelStartError("no kernel")

    siblings = Siblings()
    found = losses(await soaked(siblings, FakeSandbox(answer)))
    assert found == [f"5.{round}.{slot}: KernelStartError: no kernel" for round in range(2) for slot in range(2)]


async def test_an_exception_reported_as_ok_is_a_loss() -> None:
    seed = next(seed for seed in map(str, range(1_000)) if any(cell.fails for cell in session_of(seed)))
    async with FakeSandbox(lambda code: Result(Outcome.OK)) as box:
        soak = Soak(box, 2, 0)
        await soak._attack(seed)
    assert any("reported as OK" in text for text in losses(soak))


def test_a_soak_needs_a_sibling() -> None:
    with pytest.raises(ValueError, match="two sessions"):
        Soak(FakeSandbox(), 1, 0)


def test_one_seed_gives_the_same_cells() -> None:
    assert session_of("7.12.3") == session_of("7.12.3") != session_of("7.12.4")


@pytest.mark.parametrize("kind", sorted(ACTS))
def test_each_act_is_python(kind: str) -> None:
    for act in ACTS[kind]:
        names = dict.fromkeys(string.Template(act).get_identifiers(), "1") | {"odd": "'1'"}
        ast.parse(re.sub("^%.*", "", string.Template(act).substitute(names), flags=re.MULTILINE))


def test_the_cells_of_many_sessions_are_of_every_kind_and_ordinary_ones_are_right() -> None:
    cells = [cell for number in range(300) for cell in session_of(f"1.{number}")]
    assert {kind for cell in cells for kind in cell.kinds} == {*ACTS, "ordinary"}
    known = {cell.code: cell.text for cell in cells if cell.text is not None and cell.code.count("\n") == 0}
    for code, text in known.items():
        if not code.startswith("print"):
            assert str(eval(code)) == text


async def test_the_watch_sees_a_stall_and_where_it_was() -> None:
    def blocks() -> None:
        time.sleep(0.2)

    async with Watch() as watch:
        await asyncio.sleep(0)
        blocks()
        while not watch.stalls:  # noqa: ASYNC110 - a turn of the loop, not a time
            await asyncio.sleep(0)
    assert watch.longest.seconds > 0.1 and watch.stalled >= 1
    assert "blocks (test_soak_grammar.py" in watch.longest.where
    assert watch.peak.resident_mb > 1 and watch.peak.kernel_mb > 1 and watch.peak.descriptors > 3
