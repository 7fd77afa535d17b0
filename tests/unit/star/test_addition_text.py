"""Addition as text: scratchpads are correct, answers are found, splits do not overlap."""

from __future__ import annotations

import random
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from start_agent.papers.addition.base import BaseOptions, documents
from start_agent.papers.addition.model import CONTEXT, EOS_ID, PAD_ID, new_tokenizer
from start_agent.papers.addition.options import AdditionOptions
from start_agent.papers.addition.run import draw_sets
from start_agent.papers.addition.text import (
    DIGITS,
    answer,
    direct_prompt,
    draw,
    final_answer,
    number,
    prompt,
    question,
    rationale,
)
from start_agent.pocket.problems import split_of

SIZES = st.sampled_from(DIGITS)


@st.composite
def questions(drawing: st.DrawFn) -> str:
    size = drawing(SIZES)
    one = st.integers(10 ** (size - 1) if size > 1 else 0, 10**size - 1)
    return question(drawing(one), drawing(one))


def test_the_form_is_the_papers() -> None:
    assert prompt("624+259") + rationale("624+259") == (
        "Input:\n624+259\nTarget:\n<scratch>\n624+259,C:0\n62+25,3C:1\n6+2,83C:0\n,883C:0\n0883\n</scratch>\n883"
    )


@given(questions())
def test_the_scratchpad_does_the_sum(asked: str) -> None:
    first, second = map(int, asked.split("+"))
    *lines, closing, last = rationale(asked).splitlines()
    assert closing == "</scratch>" and int(last) == first + second and last == answer(asked)
    assert int(lines[-1]) == first + second
    for place, line in enumerate(lines[:-1]):
        left, _, found = line.partition(",")
        digits, carry = found.split("C:")
        rest = [int(part or 0) for part in left.split("+")] if left else [0, 0]
        assert len(digits) == place
        # What is left, the carry and what was found make up the sum, at every line.
        assert (sum(rest) + int(carry)) * 10**place + int(digits or 0) == first + second


@given(questions())
def test_the_answer_is_found_in_the_scratchpad_alone(asked: str) -> None:
    written = rationale(asked)
    assert final_answer(written) == answer(asked)
    for cut in range(written.index("</scratch>") + 1):
        assert final_answer(written[:cut]) is None


@given(questions())
def test_a_hint_adds_the_answer_after_the_target_and_nothing_else(asked: str) -> None:
    assert prompt(asked, answer(asked)) == prompt(asked).replace("Target:\n", f"Target:\n{answer(asked)}\n")
    assert prompt(asked).startswith(direct_prompt(asked))


@given(questions(), st.randoms())
def test_a_made_up_result_is_led_to(asked: str, rng: random.Random) -> None:
    digits = "".join(rng.choices("0123456789", k=len(asked) // 2))
    made_up, right = rationale(asked, digits).splitlines(), rationale(asked).splitlines()
    assert made_up[-3][1:] == digits and int(made_up[-3]) == int(made_up[-1])
    carries = [line.partition("C:")[2] for line in right]
    assert [line.partition("C:")[2] for line in made_up] == carries


@given(questions(), st.booleans())
def test_the_vocabulary_has_all_of_it(asked: str, hinted: bool) -> None:
    tokenizer = new_tokenizer()
    text = prompt(asked, answer(asked) if hinted else None) + rationale(asked)
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids) == text
    assert PAD_ID not in ids and EOS_ID not in ids and len(ids) < CONTEXT


def test_numbers_have_as_many_digits_as_asked_for() -> None:
    rng = random.Random(0)
    for size in DIGITS:
        assert {len(str(number(rng, size))) for _ in range(200)} == {size}


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_splits_never_overlap_whatever_the_seed(one: int, other: int) -> None:
    train = {problem.key for problem in islice(draw(one, "train"), 40)}
    dev = {problem.key for problem in islice(draw(other, "dev"), 40)}
    assert len(train) == len(dev) == 40 and train.isdisjoint(dev)


def test_a_draw_has_no_repetition_and_goes_round_the_sizes() -> None:
    drawn = list(islice(draw(3, "held-out"), 200))
    assert len({problem.key for problem in drawn}) == 200
    assert [problem.meta["level"] for problem in drawn[:10]] == [*DIGITS, *DIGITS]
    assert all(problem.answer == answer(problem.question) for problem in drawn)
    # A tenth of the hundred sums of one digit are held out, more or less: they are soon spent.
    assert sum(problem.meta["level"] == 1 for problem in drawn) < 30
    assert [problem.key for problem in islice(draw(3, "held-out"), 200)] == [problem.key for problem in drawn]


def test_the_sets_of_a_run_are_apart() -> None:
    problems, evaluations = draw_sets(AdditionOptions(problems=50, evaluated=50))
    assert len(problems) == 500
    assert {split_of(problem.question) for problem in problems} == {"train"}
    for name, held in evaluations.items():
        assert {split_of(problem.question) for problem in held} == {name}


@pytest.mark.parametrize("steps", [1, 100])
def test_the_base_never_reads_a_problem_that_is_evaluated(steps: int) -> None:
    tokenizer = new_tokenizer()
    batches = documents(BaseOptions(steps=steps, batch_size=16), lambda text: tokenizer.encode(text).ids)
    seen, shown, made_up = set[str](), 0, 0
    for batch in islice(batches, 40):
        for ids in batch:
            lines = tokenizer.decode(ids[:-1]).splitlines()
            assert ids[-1] == EOS_ID
            is_shown = lines[3] != "<scratch>"
            assert lines[-1] == (lines[3] if is_shown else answer(lines[1]))
            shown += is_shown
            made_up += lines[-1] != answer(lines[1])
            seen.add(lines[1])
    assert {split_of(asked) for asked in seen} == {"train"}
    # A result is shown once the short sums are over, and half of those are made up.
    assert steps == 100 or (shown > 150 and 0.3 < made_up / shown < 0.7)
