from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from itertools import islice

import pytest

from start_agent.pocket.corpus import SCHEDULE, mix_at, texts
from start_agent.pocket.families import FAMILIES, LEVELS
from start_agent.pocket.problems import split_of
from start_agent.pocket.texts import document, prompt, run_cell, thought

_THINKING = "<|im_start|>assistant\n<think>\n"

# Runs the programs of each document in one namespace and prints what they print, as JSON.
_RUNNER = """
import contextlib, io, json, sys
results = []
for cells in json.load(sys.stdin):
    names, outputs = {}, []
    for cell in cells:
        out = io.StringIO()
        try:
            with contextlib.redirect_stdout(out):
                exec(cell, names)
            outputs.append(out.getvalue().rstrip("\\n"))
        except Exception as error:
            outputs.append(f"{type(error).__name__}: {error}")
    results.append(outputs)
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def sample() -> list[str]:
    mixes = [mix for _, mix in SCHEDULE]
    return ["".join(pieces) for seed, mix in enumerate(mixes, 11) for pieces in islice(texts(seed, mix), 1200)]


def test_the_corpus_is_the_same_for_the_same_seed() -> None:
    assert list(islice(texts(7), 200)) == list(islice(texts(7), 200))
    assert list(islice(texts(8), 200)) != list(islice(texts(7), 200))


def test_no_thinking_holds_a_fence_unless_the_user_s_turn_does(sample: list[str]) -> None:
    turns = [text.split(_THINKING, 1) for text in sample if _THINKING in text]
    plain = [thinking for turn, thinking in turns if "```" not in turn]
    assert len(plain) > 1500
    for thinking in plain:
        assert "```" not in thinking and "Python" not in thinking
        assert thinking.count("</think>\n\nThe answer is \\boxed{") == 1
    assert any("```python" in thinking for turn, thinking in turns if "```output" in turn)


def test_the_schedule_is_in_order_and_its_shares_are_shares() -> None:
    assert [start for start, _ in SCHEDULE] == sorted({0, *(start for start, _ in SCHEDULE)})
    for start, mix in SCHEDULE:
        assert mix_at(start) is mix
        assert 0 < mix.thoughts + mix.readings + mix.drills + mix.continued < 1
    assert mix_at(10**9) is SCHEDULE[-1][1]


def test_a_thought_has_a_connective_and_ends_with_the_right_answer() -> None:
    rng = random.Random(0)
    for family in FAMILIES.values():
        for level in LEVELS:
            draft = family.draw(rng, level)
            (text,) = thought(rng, draft)
            assert text.startswith(prompt(draft.question))
            assert re.search(r"\n\n(Wait|Alternatively), ", text)
            assert text.endswith(f"</think>\n\nThe answer is \\boxed{{{draft.answer}}}.<|im_end|>")


def test_programs_in_documents_print_exactly_what_is_recorded(sample: list[str]) -> None:
    block = re.compile(r"```python\n(.*?)\n```\n```output\n(.*?)\n```", re.S)
    documents = [found for text in sample if (found := block.findall(text))]
    assert sum(len(found) for found in documents) > 1500
    cells = [[code for code, _ in found] for found in documents]
    run = subprocess.run(
        [sys.executable, "-c", _RUNNER], input=json.dumps(cells), capture_output=True, text=True, check=True
    )
    for found, outputs in zip(documents, json.loads(run.stdout), strict=True):
        for (code, recorded), output in zip(found, outputs, strict=True):
            if recorded.startswith("Traceback"):
                assert recorded.splitlines()[-1] == output
                assert recorded.splitlines()[2].strip() in code
            else:
                assert recorded == output


def test_programs_and_checks_of_every_draft_print_the_answer() -> None:
    rng = random.Random(1)
    for family in FAMILIES.values():
        for level in LEVELS:
            for _ in range(5):
                draft = family.draw(rng, level)
                for code in (*draft.programs, *draft.checks):
                    assert run_cell(code, {}, 1) == (str(draft.answer), True), code
                for code in draft.broken:
                    assert not run_cell(code, {}, 1)[1]
                names: dict[str, object] = {}
                last = [run_cell(code, names, 1)[0] for code in draft.stages][-1:]
                assert last in ([], [str(draft.answer)])


def test_slips_exist_at_the_hard_levels_and_are_often_wrong() -> None:
    rng = random.Random(2)
    wrong = 0
    for family in FAMILIES.values():
        for _ in range(20):
            draft = family.draw(rng, 3)
            wrong += any(run_cell(code, {}, 1)[0] != str(draft.answer) for code in draft.slips)
    assert wrong > 60


def test_an_error_reads_as_the_kernel_words_it() -> None:
    output, fine = run_cell("x = 1\nprint(x)\nprint(y)", {}, 1)
    assert not fine
    assert output == (
        'Traceback (most recent call last):\n  File "<cell 1>", line 3\n    print(y)\n'
        "NameError: name 'y' is not defined"
    )


def test_the_last_output_is_the_answer_that_a_document_gives() -> None:
    rng = random.Random(3)
    for family in FAMILIES.values():
        for _ in range(20):
            text = "".join(document(rng, family.draw(rng, 3)))
            last = text.split("```output\n")[-1].split("\n```")[0]
            assert last in text.split("```")[-1]


def test_documents_call_python_once_and_more_often(sample: list[str]) -> None:
    calls = [text.count("```python\n") for text in sample if _THINKING not in text]
    assert 0.3 < sum(n > 1 for n in calls) / len(calls) < 0.8


def test_only_train_problems_feed_the_corpus(sample: list[str]) -> None:
    for text in sample:
        if (found := re.search(r"<\|im_start\|>user\n(.*?)(\n|<\|im_end\|>)", text)) is not None:
            assert split_of(found[1]) == "train"
