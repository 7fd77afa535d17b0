from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from start_agent.pocket import generate, held_out, split_of
from start_agent.pocket.families import FAMILIES, LEVELS


def test_held_out_is_balanced_distinct_and_reproducible() -> None:
    problems = held_out(500, seed=0)
    assert problems == held_out(500, seed=0)
    assert len({p.key for p in problems}) == len(problems) == 500
    cells = Counter((p.meta["subject"], p.meta["level"]) for p in problems)
    assert len(cells) == len(FAMILIES) * len(LEVELS)
    assert max(cells.values()) - min(cells.values()) <= 2


def test_splits_never_overlap() -> None:
    sets = [
        {p.key for p in generate(seed, 400, split=split)} for seed in (0, 1) for split in ("train", "dev", "held-out")
    ]
    for i, one in enumerate(sets):
        for j, other in enumerate(sets):
            if i % 3 != j % 3:
                assert not one & other
    assert all(split_of(p.question) == "held-out" for p in held_out(100))


def test_a_seed_gives_the_same_problems_in_another_process() -> None:
    code = "from start_agent.pocket import generate; print([p.key for p in generate(3, 60)])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str([p.key for p in generate(3, 60)])
    assert generate(4, 60) != generate(3, 60)


def test_large_products_are_covered() -> None:
    sizes = {
        tuple(sorted(len(n) for n in p.question.replace("?", " ").replace(".", " ").split() if n.isdigit()))
        for p in generate(0, 300, families=["products"], levels=[3])
    }
    assert (4, 5) in sizes


def test_unknown_family_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="products"):
        generate(0, 1, families=["poetry"])


def test_a_spent_cell_ends_the_generation() -> None:
    few = generate(0, 10_000, split="held-out", families=["divisors"], levels=[1])
    assert 0 < len(few) < 100


def test_the_package_imports_without_torch() -> None:
    code = "import sys, start_agent.pocket; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
