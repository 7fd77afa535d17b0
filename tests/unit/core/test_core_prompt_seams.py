"""Prompts: whatever flags their added tokens have, the ids equal transformers', and questions stay text."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from start_agent.tokens.prompts import render_prompt
from start_agent.tokens.templates import ChatTemplate
from start_agent.tokens.tokenizer import Tokenizer
from tests.support.families.table import KINDS, _trained

FLAGS = ("lstrip", "rstrip", "single_word", "normalized")
SEAMS = st.sampled_from(["", " ", "\n", ": ", "  ", "[/Q] ", " x", "é", "▁"])
QUESTIONS = st.lists(
    st.sampled_from(
        ["a", " ", "  ", "\n", "\n\n", "é", "[", "[Q", "Q]", "]", "[Q]", "[/Q]", "<end>", "end>", "_", "?"]
    ),
    max_size=6,
).map("".join)


def pair(kind: str, flags: dict[str, bool], template: str) -> tuple[Any, Tokenizer]:
    from transformers import PreTrainedTokenizerFast

    backend = Backend.from_str(_trained(kind))
    backend.add_special_tokens([AddedToken("[Q]", special=True, **flags), AddedToken("<end>", normalized=False)])
    backend.add_tokens([AddedToken("[/Q]", special=False, **flags)])
    theirs = PreTrainedTokenizerFast(tokenizer_object=backend)
    theirs.chat_template = template
    return theirs, Tokenizer(backend, render_chat=ChatTemplate(template, theirs.apply_chat_template))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "flags", [dict(zip(FLAGS, chosen, strict=True)) for chosen in product((False, True), repeat=4)]
)
@settings(max_examples=12, deadline=None)
@given(question=QUESTIONS, before=SEAMS, behind=SEAMS, instruction=st.sampled_from(["", "Go."]))
def test_every_flag(
    kind: str, flags: dict[str, bool], question: str, before: str, behind: str, instruction: str
) -> None:
    template = f"[Q]{before}{{{{ messages[0].content }}}}{behind}[/Q]<end>"
    theirs, ours = pair(kind, flags, template)
    question = f"q{question}."
    asked = question + (f"\n\n{instruction}" if instruction else "")
    ids = list(render_prompt(ours, question, instruction=instruction).token_ids)
    wanted = theirs.apply_chat_template([{"role": "user", "content": asked}], tokenize=True)["input_ids"]
    if not any(spelled in asked for spelled in ours.controls.values()):
        assert ids == wanted
    else:  # what the template spells is still there, and nothing else
        bare = list(render_prompt(ours, "q.", instruction=instruction).token_ids)
        controls = [[token_id for token_id in found if token_id in ours.controls] for found in (ids, bare)]
        assert controls[0] == controls[1]
