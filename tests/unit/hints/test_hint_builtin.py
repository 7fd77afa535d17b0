"""The built-in hints."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest

from hints import Domain, Function, Hint, HintLibrary, Placement, Template
from hints.hint import OPENING_FENCE

HINTS = tuple(HintLibrary.builtin())
MATH_FUNCTIONS = [function for function in Function if function.domain is Domain.MATH]


@pytest.mark.parametrize(("function", "placement"), list(itertools.product(MATH_FUNCTIONS, Placement)))
def test_each_math_function_has_three_paraphrases(function: Function, placement: Placement) -> None:
    assert len(HintLibrary.builtin().select(Domain.MATH, placement, function)) >= 3


@pytest.mark.parametrize(("template", "placement"), list(itertools.product(Template, Placement)))
def test_each_debug_template_has_two_paraphrases(template: Template, placement: Placement) -> None:
    assert len(HintLibrary.builtin().select(Domain.CODE, placement, Function.DEBUG, template)) >= 2


def test_texts_are_unique() -> None:
    assert len({hint.text for hint in HINTS}) == len(HINTS)


@pytest.mark.parametrize("hint", HINTS, ids=lambda hint: hint.id)
def test_the_fence_opens_at_a_line_start_and_stays_open(hint: Hint) -> None:
    sentence, _, template = hint.text.partition("\n" + OPENING_FENCE)
    assert hint.opens_code
    assert sentence.endswith(".") and "\n" not in sentence
    assert "```" not in template
    if hint.domain is Domain.MATH:
        assert template == ""
    else:
        assert template.startswith("# ") and template.endswith("\n") and template.count("\n") == 1


@pytest.mark.parametrize("hint", HINTS, ids=lambda hint: hint.id)
def test_ids_say_what_the_hint_is(hint: Hint) -> None:
    parts = [hint.domain, hint.function, *([hint.template] if hint.template else []), hint.placement]
    assert hint.id.rpartition(".")[0] == ".".join(parts)


def test_the_quoted_hints_stand_as_the_authors_wrote_them() -> None:
    quoted = {hint.text.partition("\n")[0] for hint in HINTS if hint.source == "paper"}
    assert quoted == {
        "maybe using Python here is a good idea.",
        "Wait, I can use Python to check if my approach is correct and refine it, if necessary.",
        "Wait, I need to utilize Python code again to meticulously check to make sure I understand "
        "the question correctly as well as reasoning correctly.",
        "Wait, I can think more deeply about this problem through python tools.",
    }
    assert {hint.source for hint in HINTS} == {"paper", "start-agent"}


def test_importing_hints_stays_light() -> None:
    code = "import sys, hints; print([m for m in ('yaml', 'pydantic', 'start_agent') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
