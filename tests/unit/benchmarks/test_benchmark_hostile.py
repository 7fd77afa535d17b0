"""The benchmark of attacks: its attacks run, and their results are evaluated."""

from __future__ import annotations

import ast
import io
import string

import pytest
from rich.console import Console

from benchmarks.hostile import MODEL, TARGETS, Found, attacked, figures_of, table_of
from benchmarks.hostile_attacks import ATTACKS, NOTHING
from benchmarks.hostile_wire import Attack
from sandbox import Sandbox
from sandbox.vitals import Stall, Watch


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name.replace(" ", "-"))
def test_each_attack_is_python(attack: Attack) -> None:
    for cell in attack.cells:
        ast.parse(string.Template(cell).substitute(chars=8_000))


def test_each_attack_has_a_name_of_its_own() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)


def test_the_figures_are_the_worst_and_what_must_not_be_is_counted() -> None:
    found = [
        Found("a", stall=Stall(1.0, 0.04, 0.0, ""), cpu_share=0.2, kernel_mb=7),
        Found("b", stall=Stall(1.0, 0.06, 0.0, ""), exceeded=True, lost="died: "),
        Found("c", resident_mb=3, exceeded=True),
    ]
    assert figures_of(found) == {
        "stall_ms": 60,
        "cpu_share": 0.2,
        "resident_mb_more": 3,
        "kernel_mb_more": 7,
        "quotas_exceeded": 2,
        "siblings_lost": 1,
        "attacks": 3,
        "attacks_that_miss": 3,
    }
    assert set(TARGETS) <= {*figures_of(found), "faults"}


def test_the_table_marks_what_misses_its_target() -> None:
    out = io.StringIO()
    found = Found("b", ["ok", "died"], Stall(1.0, 0.06, 0.01, ""), taken=9, exceeded=True, slowest=0.5)
    Console(file=out, width=160, force_terminal=True).print(table_of([found]))
    assert "\x1b[31m60\x1b[0m" in out.getvalue() and "\x1b[31m9\x1b[0m" in out.getvalue()
    assert "ok, died" in out.getvalue() and "\x1b[31m0.0%" not in out.getvalue()


async def test_an_attack_beside_a_sibling() -> None:
    taking = Attack("taking", ("print('taken', $chars)",), most=7_799)
    async with Watch() as watch, Sandbox(MODEL, size=3, prestart=1) as box:
        for attack, taken, exceeded in ((NOTHING, None, False), (taking, 7_800, True)):
            found = await attacked(box, attack, watch, seconds=0.2)
            assert (found.taken, found.exceeded, found.lost) == (taken, exceeded, "")
            assert found.outcomes == ["timeout" if attack is NOTHING else "ok"] and found.slowest > 0
