"""The last closed box."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from start_agent.seeds import derive_seed
from start_agent.tokens.answers import boxed, last_boxed


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is \\boxed{42}.", "42"),
        ("\\boxed{1} and then \\boxed{2}", "2"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{ {a} {b{c}} }", "{a} {b{c}}"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\boxed{1 \\} 2}", "1 \\} 2"),
        ("\\boxed{a\\\\}", "a\\\\"),
        ("\\boxed {7}", "7"),
        ("\\boxed\n{7}", "7"),
        ("\\boxed{}", None),
        ("\\boxed{42}. I put it in \\boxed{}, as asked.", "42"),
        ("It is \\boxed{8}; \\boxed{ } or \\boxed{...} is the form, \\boxed{\\ldots} too.", "8"),
        ("So $\\boxed 2$.", "2"),
        ("So \\boxed -3.5, then.", "-3.5"),
        ("$$\\boxed \\frac{1}{2}$$", "\\frac{1}{2}"),
        ("$\\boxed\\pi$", "\\pi"),
        ("\\boxed12", "12"),
        ("\\boxed B.", "B"),
        ("\\(\\boxed 5\\)", "5"),
        ("\\boxed{7}, in the \\boxed notation, in a \\boxed way", "7"),
        ("\\boxedx 5", None),
        ("\\fbox{9}", "9"),
        ("\\fbox {\\boxed{1} m}", "1"),
        ("$\\boxed{x}$ or \\fbox{$y$}", "$y$"),
        ("\\boxed{outer \\boxed{inner} rest}", "inner"),
        ("\\boxed{42} but \\boxed{43", "42"),
        ("\\boxed{42} but \\boxed{43}} }", "43"),
        ("\\boxed{4{2} \\boxed{3", None),
        ("\\boxed{\\boxed{3}", "3"),
        ("{ { \\boxed{5} ", "5"),
        ("} } \\boxed{5}", "5"),
        ("\\\\boxed{5}", "5"),
        ("\\boxed{é\n2}", "é\n2"),
        ("boxed{5}", None),
        ("\\boxed 5", "5"),
        ("\\boxed{5\\", None),
        ("", None),
        ("\\boxed{", None),
    ],
)
def test_last_boxed(text: str, answer: str | None) -> None:
    assert last_boxed(text) == answer


def one_by_one(text: str) -> str | None:
    """From each box, the last first, to the brace that closes it."""
    for box in reversed(list(re.finditer(r"\\(boxed|fbox)\s*\{", text))):
        depth, place = 1, box.end()
        while place < len(text):
            if text[place] == "\\":
                place += 1
            else:
                depth += {"{": 1, "}": -1}.get(text[place], 0)
            if not depth:
                content = text[box.end() : place].strip()
                if content:
                    return content
                break
            place += 1
    return None


@settings(max_examples=500)
@given(st.lists(st.sampled_from(["\\boxed{", "\\fbox ", "\\", "{", "}", "}", "x", " ", "\n", "boxed{"])).map("".join))
def test_it_agrees_with_looking_at_one_box_after_the_other(text: str) -> None:
    assert last_boxed(text) == one_by_one(text)


def test_all_boxes() -> None:
    assert boxed("\\boxed{2} and \\boxed 3, \\boxed{} or \\fbox{\\boxed{5} m}") == ["2", "3", "5"]
    assert boxed("none") == []


@pytest.mark.parametrize(
    "unit",
    [
        "\\boxed{",
        "\\boxed",
        "\\boxed {",
        "{",
        "\\",
        "\\boxed{}",
        "\\boxed{{}",
        "\\boxed   ",
        "\\boxed x{",
        "\\boxed 1 ",
        "\\boxed \\",
    ],
)
def test_hostile_text_takes_linear_time(unit: str) -> None:
    text = (unit * (200_000 // len(unit)))[:200_000]
    started = time.process_time()
    last_boxed(text)
    assert time.process_time() - started < 2  # some tens of milliseconds; quadratic, it takes minutes


def test_derived_seeds_are_stable_and_apart() -> None:
    assert derive_seed(0, "hints") == 6006184877273500275  # stored traces are replayed with them
    assert derive_seed(7, "turn 1") == 57066193064634428
    seeds = [derive_seed(seed, purpose) for seed in range(50) for purpose in ("hints", "turn 1", "turn 2", "")]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, "2:x") != derive_seed(12, ":x")
